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

RETRY_SECONDS = 1.0
TAKE_SECONDS = 30.0
# While a burst of jobs lasts, preparing more would take the processors from those that run. So only what
# is needed to keep LOW_WATER is prepared until no job came for QUIET_SECONDS.
LOW_WATER = 2
QUIET_SECONDS = 0.02
_log = logging.getLogger("sandrun.executor")


class Park:
    """Up to `size` sandboxes, filled one at a time."""

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
        self._filler = asyncio.create_task(self._fill())
        self._changed.set()

    async def take(self) -> Sandbox:
        """A sandbox, waiting or new. Raises TimeoutError when no slot becomes free, else as prepare."""
        loop = asyncio.get_running_loop()
        self._quiet_at = loop.time() + QUIET_SECONDS
        async with asyncio.timeout(TAKE_SECONDS):
            while True:
                self._freed.clear()  # before looking: what is freed while we prepare in vain must count
                while self._waiting:
                    sandbox = self._waiting.popleft()
                    self._changed.set()
                    if sandbox.usable:
                        return sandbox
                    self._discard(sandbox)
                with suppress(NoSlotError):  # somebody was faster
                    return await self._prepare()
                await self._freed.wait()

    def slot_freed(self) -> None:
        """Whoever waits for a slot may look again."""
        self._changed.set()
        self._freed.set()

    async def _fill(self) -> None:
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
                except NoSlotError:
                    break  # the next slot to become free wakes us
                except (SandboxError, ZygoteError, CgroupError, OSError) as error:
                    _log.error("cannot prepare a sandbox: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)

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
