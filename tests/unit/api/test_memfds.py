"""A thread that reads a client's bytes has a separate handle, which is closed whatever happens."""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from sandrun_api.admission.threads import THREADS_PER_CLIENT, Threads, in_thread
from sandrun_api.errors import ApiError
from sandrun_shared.memfds import Memfd
from support.descriptors import open_now

pytestmark = pytest.mark.anyio
T = TypeVar("T")


async def test_a_thread_reads_on_when_its_caller_is_cancelled() -> None:
    before = open_now()
    pool, memfd, loop = Threads(), Memfd.create("upload", b"of this client"), asyncio.get_running_loop()
    begun, over, go_on, read = asyncio.Event(), asyncio.Event(), threading.Event(), []

    def work(upload: Memfd) -> None:
        fd = upload.fileno()  # as what reads an archive has it
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(30)
        read.append(os.pread(fd, 100, 0))
        loop.call_soon_threadsafe(over.set)

    task = asyncio.create_task(in_thread(memfd, pool.of("client"), work))
    async with asyncio.timeout(30):
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        memfd.close()
        other = Memfd.create("other", b"of somebody else")
        go_on.set()
        await over.wait()
    assert read == [b"of this client"]
    other.close()
    pool._pool.shutdown(wait=True)
    assert open_now() == before


async def test_what_waits_and_is_cancelled_leaves_no_handle() -> None:
    before = open_now()
    pool, memfd, go_on = Threads(), Memfd.create("upload", b"x"), threading.Event()
    tasks = [
        asyncio.create_task(in_thread(memfd, pool.of("client"), lambda _: go_on.wait(30)))
        for _ in range(THREADS_PER_CLIENT + 1)
    ]
    async with asyncio.timeout(30):
        await asyncio.sleep(0)  # all of them have asked
        assert pool.waiting == 1
        tasks[-1].cancel()
        await asyncio.wait(tasks[-1:])
        go_on.set()
        await asyncio.wait(tasks)
    memfd.close()
    pool.close()
    assert open_now() == before


@pytest.mark.parametrize("begins", [False, True])
async def test_what_is_refused_or_fails_leaves_no_handle(begins: bool) -> None:
    async def blocking(function: Callable[..., T], /, *arguments: Any) -> T:
        if not begins:
            raise ApiError(429, "too much waits")
        return function(*arguments)

    def work(_: Memfd) -> None:
        raise ApiError(400, "no archive")

    memfd = Memfd.create("upload", b"x")
    before = open_now()
    with pytest.raises(ApiError):
        await in_thread(memfd, blocking, work)
    assert open_now() == before
    memfd.close()


async def test_what_begins_after_its_caller_left_reads_nothing() -> None:
    late: list[Callable[[], object]] = []

    async def blocking(function: Callable[..., T], /, *_: Any) -> T:
        late.append(function)
        raise asyncio.CancelledError

    memfd = Memfd.create("upload", b"x")
    with pytest.raises(asyncio.CancelledError):
        await in_thread(memfd, blocking, Memfd.fileno)
    memfd.close()
    with pytest.raises(ValueError, match="closed"):
        late[0]()
