"""Threads for work that would block the event loop: round-robin over clients, with a bound for each.

An archive's check, a digest and a download's compression take seconds of CPU time that a client decides
about. So the threads are shared fairly, what waits for them is bounded, and their CPU time is charged.
"""

import asyncio
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, Protocol, TypeVar

from sandrun_api.errors import ApiError
from sandrun_shared.memfds import Memfd, sha256_of

THREADS = 4
THREADS_PER_CLIENT = 2  # so that one client alone leaves threads for the others
WAITING_PER_CLIENT = 32
WAITING = 512
INLINE_BYTES = 256 << 10  # hashed without a thread
RETRY_SECONDS = 5  # nobody knows how long what waits will take

T = TypeVar("T")


class Blocking(Protocol):
    """What runs a function in a thread, as asyncio.to_thread does."""

    async def __call__(self, function: Callable[..., T], /, *arguments: Any) -> T:
        """The function's result."""


async def in_thread(
    memfd: Memfd, blocking: Blocking, function: Callable[Concatenate[Memfd, ...], T], *arguments: Any
) -> T:
    """The result of a function that blocks, given a handle on the bytes that the thread owns.

    The waiting task may be cancelled and close the memfd, whose number the next file gets, while the thread
    still reads. Raises OSError when the process is out of descriptors.
    """
    handle = memfd.duplicate()
    claim = threading.Lock()  # of who closes the handle: the thread, or the caller if it has not begun

    def work() -> T:
        if not claim.acquire(blocking=False):
            raise ValueError("the memfd is closed")
        try:
            return function(handle, *arguments)
        finally:
            handle.close()

    try:
        return await blocking(work)
    except BaseException:
        if claim.acquire(blocking=False):
            handle.close()
        raise


async def digest_of(memfd: Memfd, blocking: Blocking) -> str:
    """SHA-256 in hex of all bytes; of many in a thread."""
    return sha256_of(memfd) if memfd.size <= INLINE_BYTES else await in_thread(memfd, blocking, sha256_of)


@dataclass(eq=False)
class _Work:
    client: str
    call: Callable[[], Any]
    result: asyncio.Future[Any]


@dataclass(frozen=True)
class _Done:
    cpu_seconds: float
    value: Any = None
    error: BaseException | None = None


def _measured(call: Callable[[], Any]) -> _Done:
    before = time.thread_time()
    try:
        value = call()
    except BaseException as error:
        return _Done(time.thread_time() - before, error=error)
    return _Done(time.thread_time() - before, value)


class Threads:
    """A pool of threads; `charge` is told the CPU seconds that work of a client took, also what failed."""

    def __init__(
        self,
        charge: Callable[[str, float], None] = lambda *_: None,
        *,
        threads: int = THREADS,
        per_client: int = THREADS_PER_CLIENT,
    ) -> None:
        self._charge = charge
        self._free = threads
        self._per_client = per_client
        self._pool = ThreadPoolExecutor(threads, "sandrun-client")
        self._lines: OrderedDict[str, deque[_Work]] = OrderedDict()  # the next turn's client first
        self._running: Counter[str] = Counter()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Work that waits for its client's turn."""
        return self._waiting

    def of(self, client: str) -> Blocking:
        """Run a client's work: what `run` does, in the form of asyncio.to_thread."""

        async def run(function: Callable[..., T], /, *arguments: Any) -> T:
            return await self.run(client, lambda: function(*arguments))

        return run

    async def run(self, client: str, call: Callable[[], T], *, is_bounded: bool = False) -> T:
        """The result of the call, made in a thread when it is the client's turn.

        Raises ApiError, 429 or 503, when too much waits already. is_bounded says that the caller bounds by
        other means how much it makes wait: a download under way is not refused.
        """
        line = self._lines.get(client, ())
        if not is_bounded and len(line) >= WAITING_PER_CLIENT:
            reason = f"{WAITING_PER_CLIENT} uploads of your address wait for their check already."
            raise ApiError(429, reason, retry_after=RETRY_SECONDS, cause="checks")
        if not is_bounded and self._waiting >= WAITING:
            reason = "Too many uploads wait for their check."
            raise ApiError(503, reason, retry_after=RETRY_SECONDS, cause="checks")
        work = _Work(client, call, asyncio.get_running_loop().create_future())
        self._lines.setdefault(client, deque()).append(work)
        self._waiting += 1
        self._dispatch()
        try:
            value: T = await work.result
        except asyncio.CancelledError:
            self._withdraw(work)
            raise
        return value

    def close(self) -> None:
        """Start nothing more; what runs ends by itself."""
        self._free = 0
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _withdraw(self, work: _Work) -> None:
        line = self._lines.get(work.client)
        if line is not None and work in line:
            line.remove(work)
            self._waiting -= 1
            if not line:
                del self._lines[work.client]

    def _dispatch(self) -> None:
        while self._free > 0:
            client = next((who for who in self._lines if self._running[who] < self._per_client), None)
            if client is None:
                return
            line = self._lines[client]
            work = line.popleft()
            self._waiting -= 1
            if line:
                self._lines.move_to_end(client)
            else:
                del self._lines[client]
            self._free -= 1
            self._running[client] += 1
            self._pool.submit(_measured, work.call).add_done_callback(partial(self._tell, work))

    def _tell(self, work: _Work, future: Future[_Done]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            work.result.get_loop().call_soon_threadsafe(self._ended, work, future)

    def _ended(self, work: _Work, future: Future[_Done]) -> None:
        self._running[work.client] -= 1
        if not self._running[work.client]:
            del self._running[work.client]
        self._free += 1
        if future.cancelled():
            work.result.cancel()
            return
        done = future.result()
        self._charge(work.client, done.cpu_seconds)
        if not work.result.done():
            if done.error is not None:
                work.result.set_exception(done.error)
            else:
                work.result.set_result(done.value)
        self._dispatch()
