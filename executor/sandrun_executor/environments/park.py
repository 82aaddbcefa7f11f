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
# Each attempt that does not return may cost a slot for good: so it is not made often.
LONGEST_RETRY_SECONDS = 60.0
ACQUIRE_SECONDS = 30.0  # an environment may be imported meanwhile; what can be known to fail fails at once
PROBE_SECONDS = 3.0
LATELY_SECONDS = 60.0
# While a burst of jobs lasts, preparing more would take the processors from those that run. So only what
# is needed to keep LOW_WATER is prepared until no job came for QUIET_SECONDS.
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
        self._changed = asyncio.Event()  # one was taken, or a slot is free
        self._freed = asyncio.Event()  # there is something to take, or a slot to prepare it in
        self._quiet_at = 0.0
        self._filler: asyncio.Task[None] | None = None
        self._again = asyncio.Event()  # what failed may work now
        self._probing: asyncio.Task[str] | None = None
        self.circuit = Circuit()
        self.circuit.on_open = self._changed.set

    async def start(self) -> None:
        """Prepare the first sandbox, then the others beside. Raises what prepare raises."""
        self._waiting.append(await self._make())
        self.open()

    def open(self) -> None:
        """Begin to fill; without, each sandbox is prepared when it is taken."""
        self._filler = asyncio.create_task(self._fill())
        self._changed.set()

    @property
    def size(self) -> int:
        """How many are to be kept."""
        return self._size

    @property
    def waiting(self) -> int:
        """How many are there."""
        return len(self._waiting)

    def resize(self, size: int) -> None:
        """Keep so many from now on."""
        if size != self._size:
            self._size = size
            while len(self._waiting) > size:
                self._release(self._waiting.pop())
            self._changed.set()

    async def acquire(self) -> Sandbox:
        """A sandbox, waiting or new.

        Raises Unavailable when none can be made, also while it waits; TimeoutError when no slot becomes free.
        """
        loop = asyncio.get_running_loop()
        self._quiet_at = loop.time() + QUIET_SECONDS
        if (sandbox := self.acquire_waiting()) is not None:
            return sandbox
        try:
            async with self.circuit.waiting(ACQUIRE_SECONDS):
                return await self._acquire_or_make()
        except Unavailable:
            if (sandbox := self.acquire_waiting()) is not None:  # it was finished while ours was not
                return sandbox
            raise

    async def _acquire_or_make(self) -> Sandbox:
        while True:
            self._freed.clear()  # before looking: what is freed while we prepare in vain must count
            sandbox = self.acquire_waiting()
            if sandbox is not None:
                return sandbox
            try:
                return await self._make()
            except NoSlotError:  # somebody was faster
                await self._freed.wait()
            except Failures as error:
                self.circuit.check()
                _log.warning("cannot prepare a sandbox, and try once more: %s", error)

    async def _make(self) -> Sandbox:
        """A new sandbox; the circuit learns what came of it. Raises what prepare raises."""
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
        """Why no job could get a sandbox, for clients; "" when one waits, was made lately or is made now."""
        known = self._has_one or self.circuit.is_open or self.circuit.made_within(LATELY_SECONDS)
        return self.known_problem() if known else await self._probe()

    def known_problem(self) -> str:
        """As problem, without trying."""
        return "" if self.circuit.fault is None or self._has_one else self.circuit.fault.told

    @property
    def _has_one(self) -> bool:
        return any(sandbox.usable for sandbox in self._waiting)

    async def _probe(self) -> str:
        """Make one sandbox for all who ask; what keeps it from being made, as problem."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._try())
            self._probing.add_done_callback(self._tried)
        probing = self._probing
        done, _ = await asyncio.wait({probing}, timeout=PROBE_SECONDS)
        return probing.result() if done else faults.SLOW.told  # what it is, is not known yet

    async def _try(self) -> str:
        try:
            self._keep(await self._make())
        except NoSlotError:
            pass  # every slot is in use: then they could be made
        except Failures as error:
            _log.error("cannot prepare a sandbox: %s", error)
            return fault_of(error).told
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
        """Something that did not end has ended: what failed may work."""
        self._again.set()

    def acquire_waiting(self) -> Sandbox | None:
        """A sandbox that waits; None when none does."""
        while self._waiting:
            sandbox = self._waiting.popleft()
            self._changed.set()
            if sandbox.usable:
                return sandbox
            self._release(sandbox)
        return None

    def slot_freed(self) -> None:
        """Whoever waits for a slot may look again."""
        self._changed.set()
        self._freed.set()

    async def _fill(self) -> None:
        """Keep `size` sandboxes, and be the one who tries while the circuit is open."""
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
        """Prepare no more and discard what is there."""
        tasks = [task for task in (self._filler, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._waiting:
            self._release(self._waiting.popleft())
