"""Circuit breaker: after repeated failures to make a sandbox, jobs are refused at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sandrun_executor.cgroups.probe import CgroupError
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.faults import Fault
from sandrun_executor.sandboxes.sandbox import SandboxError
from sandrun_executor.sandboxes.slots import SlotsRetiredError
from sandrun_executor.sandboxes.zygote import ZygoteError

FAILURES = 3  # in a row, if each fails quickly and the next attempt may succeed
# The exceptions with which making a sandbox fails.
Failures = (SandboxError, ZygoteError, CgroupError, SlotsRetiredError, OSError)


class Unavailable(SandboxError):
    """No sandbox can be made now, and another task is already retrying."""


def fault_of(error: Exception) -> Fault:
    """The cause of one of `Failures`."""
    match error:
        case SandboxError(fault=fault):
            return fault
        case SlotsRetiredError():
            return faults.SLOTS_RETIRED
    return faults.of_error(error)


def is_quick(error: Exception) -> bool:
    """Whether a failure was quick and left no process that has yet to die."""
    return isinstance(error, CgroupError | OSError) or (
        isinstance(error, SandboxError) and not error.is_stuck
    )


class Circuit:
    """Opens when making sandboxes fails, closes on success; while it is open, one task retries."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.fault: Fault | None = None  # while it is open
        self.failures = 0  # ever
        self.on_open: Callable[[], None] = _nothing
        self._clock = clock
        self._in_a_row = 0
        self._made_at = float("-inf")
        self._waiting: set[asyncio.Timeout] = set()

    @property
    def is_open(self) -> bool:
        """Whether jobs are refused instead of waiting for a sandbox."""
        return self.fault is not None

    def made_within(self, seconds: float) -> bool:
        """Whether a sandbox was made lately."""
        return self._clock() - self._made_at <= seconds

    def made(self) -> None:
        """Record a success."""
        self._made_at = self._clock()
        self._in_a_row = 0
        self.fault = None

    def failed(self, error: Exception) -> None:
        """Record a failure."""
        self.failures += 1
        self._in_a_row += 1
        if is_quick(error) and not self.is_open and self._in_a_row < FAILURES:
            return
        was_open, self.fault = self.is_open, fault_of(error)
        if not was_open:
            now = asyncio.get_running_loop().time()
            for limit in self._waiting:
                limit.reschedule(now)
            self.on_open()

    def check(self) -> None:
        """Raises Unavailable while it is open."""
        if self.fault is not None:
            raise Unavailable(self.fault)

    @asynccontextmanager
    async def waiting(self, seconds: float) -> AsyncIterator[None]:
        """Bound the wait for a sandbox. Raises Unavailable as soon as the circuit opens, TimeoutError."""
        self.check()
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                self._waiting.add(limit)
                try:
                    yield
                finally:
                    self._waiting.discard(limit)
        except TimeoutError:
            self.check()
            raise


def _nothing() -> None:
    return
