"""Sandboxes kept ready ahead of demand, each used once."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sandrun_executor.environments.circuit import Circuit, Failures, Unavailable, fault_of, is_quick
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_executor.sandboxes.slots import NoSlotError

RETRY_SECONDS = 1.0  # doubled after each failure
LONGEST_QUICK_RETRY_SECONDS = 5.0
# Each attempt that hangs may cost a slot for good, so attempts are rare.
LONGEST_RETRY_SECONDS = 60.0
ACQUIRE_SECONDS = 30.0  # long enough to import an environment; known failures do not wait
PROBE_SECONDS = 3.0
LATELY_SECONDS = 60.0
# During a burst of jobs, preparing more sandboxes would take processors from the jobs. Therefore only
# LOW_WATER sandboxes are kept until no job has come for QUIET_SECONDS.
LOW_WATER = 1
QUIET_SECONDS = 0.02
_log = logging.getLogger("sandrun.executor")


class Park:
    """Up to `size` sandboxes, filled one at a time; the size may change."""

    def __init__(
        self, size: int, prepare: Callable[[], Awaitable[Sandbox]], release: Callable[[Sandbox], None]
    ) -> None:
        self._size = size
        self._prepare = prepare
        self._release = release
        self._waiting: deque[Sandbox] = deque()
        self._changed = asyncio.Event()  # a sandbox was acquired, or a slot is free
        self._freed = asyncio.Event()  # a sandbox waits, or a slot is free to prepare one in
        self._quiet_at = 0.0
        self._filler: asyncio.Task[None] | None = None
        self._again = asyncio.Event()  # an attempt may succeed now
        self._probing: asyncio.Task[str] | None = None
        self.circuit = Circuit()
        self.circuit.on_open = self._changed.set

    async def start(self) -> None:
        """Prepare the first sandbox, then fill in the background. Raises what prepare raises."""
        self._waiting.append(await self._make())
        self.open()

    def open(self) -> None:
        """Begin to fill; until then each sandbox is prepared when it is acquired."""
        self._filler = asyncio.create_task(self._fill())
        self._changed.set()

    @property
    def size(self) -> int:
        """How many sandboxes to keep."""
        return self._size

    @property
    def waiting(self) -> int:
        """How many sandboxes wait."""
        return len(self._waiting)

    def resize(self, size: int) -> None:
        """Change how many sandboxes to keep."""
        if size != self._size:
            self._size = size
            while len(self._waiting) > size:
                self._release(self._waiting.pop())
            self._changed.set()

    async def acquire(self) -> Sandbox:
        """Acquire a waiting sandbox, or prepare one.

        Raises Unavailable as soon as none can be made, even during the wait; TimeoutError when no slot
        becomes free.
        """
        loop = asyncio.get_running_loop()
        self._quiet_at = loop.time() + QUIET_SECONDS
        if (sandbox := self._acquire_waiting()) is not None:
            return sandbox
        try:
            async with self.circuit.waiting(ACQUIRE_SECONDS):
                return await self._acquire_or_make()
        except Unavailable:
            if (sandbox := self._acquire_waiting()) is not None:  # another task made one meanwhile
                return sandbox
            raise

    async def _acquire_or_make(self) -> Sandbox:
        while True:
            self._freed.clear()  # cleared before looking, so that a slot freed during a failed attempt counts
            sandbox = self._acquire_waiting()
            if sandbox is not None:
                return sandbox
            try:
                return await self._make()
            except NoSlotError:  # another job was faster
                await self._freed.wait()
            except Failures as error:
                self.circuit.check()
                _log.warning("cannot prepare a sandbox, retrying once: %s", error)

    async def _make(self) -> Sandbox:
        """Prepare a sandbox and record the result in the circuit. Raises what prepare raises."""
        try:
            sandbox = await self._prepare()
        except Failures as error:
            was_open = self.circuit.is_open
            self.circuit.failed(error)
            if self.circuit.is_open and not was_open:
                _log.error("no sandbox can be made, and jobs are refused: %s", self.circuit.fault)
            raise
        if self.circuit.is_open:
            _log.warning("sandboxes can be made again")
            self._again.set()
        self.circuit.made()
        return sandbox

    async def problem(self) -> str:
        """Say why no job could get a sandbox, for clients; "" if one waits, was just made, or can be made."""
        known = self._has_one or self.circuit.is_open or self.circuit.made_within(LATELY_SECONDS)
        return self.known_problem() if known else await self._probe()

    def known_problem(self) -> str:
        """As problem, without trying."""
        return "" if self.circuit.fault is None or self._has_one else self.circuit.fault.for_clients

    @property
    def _has_one(self) -> bool:
        return any(sandbox.usable for sandbox in self._waiting)

    async def _probe(self) -> str:
        """Make one sandbox for all callers; returns the problem, or ""."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._try())
            self._probing.add_done_callback(self._tried)
        probing = self._probing
        done, _ = await asyncio.wait({probing}, timeout=PROBE_SECONDS)
        return probing.result() if done else faults.SLOW.for_clients  # the cause is not known yet

    async def _try(self) -> str:
        try:
            self._keep(await self._make())
        except NoSlotError:
            pass  # every slot is in use, so sandboxes could be made
        except Failures as error:
            _log.error("cannot prepare a sandbox: %s", error)
            return fault_of(error).for_clients
        return ""

    def _tried(self, _: asyncio.Task[str]) -> None:
        self._probing = None

    def _keep(self, sandbox: Sandbox) -> None:
        if len(self._waiting) < self._size:
            self._waiting.append(sandbox)
            self._freed.set()
        else:
            self._release(sandbox)

    def try_again(self) -> None:
        """Retry at once: something that was stuck has ended."""
        self._again.set()

    def _acquire_waiting(self) -> Sandbox | None:
        """Acquire a sandbox that waits already, else None."""
        while self._waiting:
            sandbox = self._waiting.popleft()
            self._changed.set()
            if sandbox.usable:
                return sandbox
            self._release(sandbox)
        return None

    def slot_freed(self) -> None:
        """Wake the tasks that wait for a slot."""
        self._changed.set()
        self._freed.set()

    async def _fill(self) -> None:
        """Keep `size` sandboxes, and be the only one to retry while the circuit is open."""
        retry_seconds = RETRY_SECONDS
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self.circuit.is_open or len(self._waiting) < self._size:
                busy = self._quiet_at - asyncio.get_running_loop().time()
                if busy > 0 and len(self._waiting) >= LOW_WATER and not self.circuit.is_open:
                    await self._wait_for_change(busy)
                    continue
                try:
                    self._keep(await self._make())
                    retry_seconds = RETRY_SECONDS
                    continue
                except NoSlotError:
                    if not self.circuit.is_open:
                        break  # the next slot to become free wakes us
                    longest = LONGEST_QUICK_RETRY_SECONDS
                except Failures as error:
                    _log.error("cannot prepare a sandbox: %s", error)
                    longest = LONGEST_QUICK_RETRY_SECONDS if is_quick(error) else LONGEST_RETRY_SECONDS
                await self._wait_to_try(min(retry_seconds, longest))
                retry_seconds = min(2 * retry_seconds, longest)

    async def _wait_to_try(self, seconds: float) -> None:
        self._again.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._again.wait()

    async def _wait_for_change(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
            self._changed.clear()

    async def close(self) -> None:
        """Prepare no more sandboxes and release those that wait."""
        tasks = [task for task in (self._filler, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._waiting:
            self._release(self._waiting.popleft())
