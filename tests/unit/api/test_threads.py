"""Whose turn it is in the threads, what waits, and who pays."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from sandrun_api.admission.threads import THREADS, THREADS_PER_CLIENT, WAITING, WAITING_PER_CLIENT, Threads
from sandrun_api.errors import ApiError

pytestmark = pytest.mark.anyio


class Charges(Counter[str]):
    """CPU seconds by client."""

    def charge(self, client: str, seconds: float) -> None:
        self[client] += seconds  # type: ignore[assignment]


@pytest.fixture
def charges() -> Charges:
    return Charges()


@pytest.fixture
async def threads(charges: Charges) -> AsyncIterator[Threads]:
    pool = Threads(charges.charge)
    yield pool
    pool.close()


class Held:
    """Work that goes on until it is let go; it says when it began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._let_go = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def work(self, name: str) -> str:
        self.begun.append(name)
        self._loop.call_soon_threadsafe(self._changed.set)
        assert self._let_go.wait(30)
        return name

    def let_go(self) -> None:
        self._let_go.set()

    async def until_begun(self, number: int) -> None:
        async with asyncio.timeout(30):
            while len(self.begun) < number:
                self._changed.clear()
                await self._changed.wait()


async def test_one_client_leaves_threads_for_others(threads: Threads) -> None:
    held = Held()
    greedy = [asyncio.create_task(threads.of("a")(held.work, "a")) for _ in range(20)]
    await held.until_begun(THREADS_PER_CLIENT)
    assert await threads.of("b")(lambda: "b") == "b"  # at once, though a's work waits
    assert held.begun == ["a"] * THREADS_PER_CLIENT
    held.let_go()
    assert await asyncio.gather(*greedy) == ["a"] * 20


async def test_each_client_in_turn(charges: Charges) -> None:
    threads, held, order = Threads(charges.charge, threads=1, per_client=1), Held(), list[str]()
    first = asyncio.create_task(threads.of("a")(held.work, "a"))
    await held.until_begun(1)
    waiting = [
        asyncio.create_task(threads.of(client)(order.append, client))
        for client in ("a", "a", "a", "b", "c", "b")
    ]
    await asyncio.sleep(0)
    held.let_go()
    await asyncio.gather(first, *waiting)
    assert order == ["a", "b", "c", "a", "b", "a"]
    threads.close()


async def test_what_waits_is_bounded(threads: Threads) -> None:
    held = Held()
    tasks = [
        asyncio.create_task(threads.of("a")(held.work, "a"))
        for _ in range(THREADS_PER_CLIENT + WAITING_PER_CLIENT)
    ]
    await held.until_begun(THREADS_PER_CLIENT)
    with pytest.raises(ApiError) as caught:
        await threads.of("a")(lambda: None)
    assert (caught.value.status, caught.value.retry_after) == (429, 5)
    # A download under way is not refused.
    tasks.append(asyncio.create_task(threads.run("a", lambda: "a", is_bounded=True)))
    tasks += [
        asyncio.create_task(threads.of("b")(held.work, "b")) for _ in range(THREADS - THREADS_PER_CLIENT)
    ]
    await held.until_begun(THREADS)
    for number in range(WAITING - WAITING_PER_CLIENT - 1):
        tasks.append(asyncio.create_task(threads.of(f"c{number}")(held.work, "c")))
    await asyncio.sleep(0)
    with pytest.raises(ApiError) as caught:
        await threads.of("d")(lambda: None)
    assert (caught.value.status, caught.value.retry_after) == (503, 5)
    held.let_go()
    await asyncio.gather(*tasks)


async def test_failed_work_is_paid_for(threads: Threads, charges: Charges) -> None:
    def spend() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        raise ApiError(400, "no")

    with pytest.raises(ApiError):
        await threads.of("a")(spend)
    assert charges["a"] >= 0.05
    assert "b" not in charges


async def test_work_whose_client_left_is_not_begun(threads: Threads) -> None:
    held = Held()
    running = [asyncio.create_task(threads.of("a")(held.work, "a")) for _ in range(THREADS_PER_CLIENT)]
    await held.until_begun(THREADS_PER_CLIENT)
    waiting = asyncio.create_task(threads.of("a")(held.work, "gone"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.let_go()
    await asyncio.gather(*running)
    assert await threads.of("a")(lambda: "next") == "next"
    assert "gone" not in held.begun
