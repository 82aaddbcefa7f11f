"""Sandboxes kept ready ahead of demand, each used once."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sandrun_executor.cgroups import CgroupError
from sandrun_executor.sandboxes import Sandbox, SandboxError
from sandrun_executor.slots import NoSlotError
from sandrun_executor.zygotes import ZygoteError

RETRY_SECONDS = 1.0  # and twice as long after each failure more
LONGEST_RETRY_SECONDS = 60.0
TAKE_SECONDS = 30.0
# While a burst of jobs lasts, preparing more would take the processors from those that run. So only what
# is needed to keep LOW_WATER is prepared until no job came for QUIET_SECONDS.
LOW_WATER = 1
QUIET_SECONDS = 0.02
_log = logging.getLogger("sandrun.executor")


class Park:
    """Up to `size` sandboxes, filled one at a time; the size may change."""

    def __init__(
        self, size: int, prepare: Callable[[], Awaitable[Sandbox]], discard: Callable[[Sandbox], None]
    ) -> None:
        self._size = size
        self._prepare = prepare
        self._discard = discard
        self._waiting: deque[Sandbox] = deque()
        self._changed = asyncio.Event()  # one was taken, or a slot is free
        self._freed = asyncio.Event()  # there is something to take, or a slot to prepare it in
        self._quiet_at = 0.0
        self._filler: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Prepare the first sandbox, then the others beside. Raises what prepare raises."""
        self._waiting.append(await self._prepare())
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
                self._discard(self._waiting.pop())
            self._changed.set()

    async def take(self) -> Sandbox:
        """A sandbox, waiting or new. Raises TimeoutError when no slot becomes free, else as prepare."""
        loop = asyncio.get_running_loop()
        self._quiet_at = loop.time() + QUIET_SECONDS
        async with asyncio.timeout(TAKE_SECONDS):
            while True:
                self._freed.clear()  # before looking: what is freed while we prepare in vain must count
                sandbox = self.take_waiting()
                if sandbox is not None:
                    return sandbox
                with suppress(NoSlotError):  # somebody was faster
                    return await self._prepare()
                await self._freed.wait()

    def take_waiting(self) -> Sandbox | None:
        """A sandbox that waits; None when none does."""
        while self._waiting:
            sandbox = self._waiting.popleft()
            self._changed.set()
            if sandbox.usable:
                return sandbox
            self._discard(sandbox)
        return None

    def slot_freed(self) -> None:
        """Whoever waits for a slot may look again."""
        self._changed.set()
        self._freed.set()

    async def _fill(self) -> None:
        retry_seconds = RETRY_SECONDS
        while True:
            await self._changed.wait()
            self._changed.clear()
            while len(self._waiting) < self._size:
                busy = self._quiet_at - asyncio.get_running_loop().time()
                if busy > 0 and len(self._waiting) >= LOW_WATER:
                    await self._wait_for_change(busy)
                    continue
                try:
                    self._waiting.append(await self._prepare())
                    self._freed.set()
                    retry_seconds = RETRY_SECONDS
                except NoSlotError:
                    break  # the next slot to become free wakes us
                except (SandboxError, ZygoteError, CgroupError, OSError) as error:
                    _log.error("cannot prepare a sandbox: %s", error)
                    await asyncio.sleep(retry_seconds)
                    retry_seconds = min(2 * retry_seconds, LONGEST_RETRY_SECONDS)

    async def _wait_for_change(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
            self._changed.clear()

    async def close(self) -> None:
        """Prepare no more and discard what is there."""
        if self._filler is not None:
            self._filler.cancel()
            await asyncio.gather(self._filler, return_exceptions=True)
        while self._waiting:
            self._discard(self._waiting.popleft())
