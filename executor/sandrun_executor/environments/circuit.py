"""Whether sandboxes can be made: those who wait are told at once when that fails again and again."""

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

FAILURES = 3  # in a row, of what fails quickly and may work the next time
# What trying to make a sandbox raises when it fails.
Failures = (SandboxError, ZygoteError, CgroupError, SlotsRetiredError, OSError)


class Unavailable(SandboxError):
    """No sandbox can be made now, and somebody else is trying already."""


def fault_of(error: Exception) -> Fault:
    """The cause of one of `Failures`."""
    match error:
        case SandboxError(fault=fault):
            return fault
        case SlotsRetiredError():
            return faults.SLOTS_RETIRED
    return faults.of_error(error)


def is_quick(error: Exception) -> bool:
    """Whether one of `Failures` took next to no time and left nothing that has to die."""
    return isinstance(error, CgroupError | OSError) or (
        isinstance(error, SandboxError) and not error.is_stuck
    )


class Circuit:
    """Opens when making fails, closes when it works; only one may try while it is open."""

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
        """Whether nobody but the one who tries may wait for a sandbox."""
        return self.fault is not None

    def made_within(self, seconds: float) -> bool:
        """Whether a sandbox was made lately."""
        return self._clock() - self._made_at <= seconds

    def made(self) -> None:
        """One was made."""
        self._made_at = self._clock()
        self._in_a_row = 0
        self.fault = None

    def failed(self, error: Exception) -> None:
        """One could not be made."""
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
        """Wait for a sandbox in here. Raises Unavailable as soon as none can be made, TimeoutError."""
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
