"""The executor's end of a channel, with anything at the other."""

import array
import asyncio
import os
import socket
from collections.abc import Callable, Coroutine

import pytest

from sandrun_executor.sandboxes.channel import Heard, Link
from sandrun_sandbox.messages import (
    FROM_INIT,
    Collect,
    Configure,
    Configured,
    Exited,
    Forked,
    MessageError,
    Stop,
    decode_order,
)

SECONDS = 20.0


class Far:
    """The other side, and what the executor's side heard."""

    def __init__(self) -> None:
        self.link = Link()
        self.sock = socket.socket(fileno=os.dup(self.link.far))
        self.link.close_far()
        self.heard: list[tuple[Heard, int | None]] = []
        self._came = asyncio.Event()
        self.link.listen(FROM_INIT, self._hear)

    def _hear(self, heard: Heard, fd: int | None) -> None:
        self.heard.append((heard, fd))
        self._came.set()

    def send(self, data: bytes, *fds: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], rights)

    async def hears(self, count: int = 1) -> None:
        while len(self.heard) < count:
            self._came.clear()
            await self._came.wait()

    def close(self) -> None:
        self.sock.close()
        self.link.close()
        for _, fd in self.heard:
            if fd is not None:
                os.close(fd)


def bounded(test: Callable[[Far], Coroutine[None, None, None]]) -> Callable[[], None]:
    async def with_far() -> None:
        before = os.listdir("/proc/self/fd")
        far = Far()
        try:
            await asyncio.wait_for(test(far), SECONDS)
        finally:
            far.close()
        assert os.listdir("/proc/self/fd") == before

    def run() -> None:
        asyncio.run(with_far())

    run.__name__ = test.__name__
    return run


@bounded
async def test_reports_are_messages(far: Far) -> None:
    far.send(b"exited 0 1")
    far.send(b"configured")
    await far.hears(2)
    assert far.heard == [(Exited(0, True), None), (Configured(), None)]


@bounded
async def test_what_is_not_to_be_said_here_is_an_error_with_its_name(far: Far) -> None:
    far.send(b"ready")
    far.send(b"exited 0")
    await far.hears(2)
    assert [str(heard) for heard, _ in far.heard] == [
        "no such message here: ready",
        "no such message here: exited",
    ]


@bounded
async def test_junk_is_an_error_and_what_follows_is_heard(far: Far) -> None:
    for data in (b"\xff\xfe\0 \n", b"a" * 5000, b"configured" + b" " * 5000, b"configured\n", b" configured"):
        far.send(data)
    far.send(b"configured")
    await far.hears(6)
    assert [type(heard) for heard, _ in far.heard] == [MessageError] * 5 + [Configured]
    assert {heard.name for heard, _ in far.heard if isinstance(heard, MessageError)} == {"unknown"}


@bounded
async def test_end_is_none_once(far: Far) -> None:
    far.sock.close()
    await far.hears()
    await asyncio.wait({asyncio.get_running_loop().run_in_executor(None, int)})
    assert far.heard == [(None, None)]


@bounded
async def test_far_end_dies_with_unread_messages(far: Far) -> None:
    far.link.send(Stop(0.0), [])
    far.sock.close()
    await far.hears()
    assert far.heard == [(None, None)]


@bounded
async def test_descriptor_comes_along_and_is_not_inherited(far: Far) -> None:
    read_fd, write_fd = os.pipe()
    far.send(b"forked", read_fd)
    os.close(read_fd)
    await far.hears()
    heard, fd = far.heard[0]
    assert heard == Forked()
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.write(write_fd, b"x")
    os.close(write_fd)
    assert os.read(fd, 10) == b"x"


@bounded
async def test_too_many_descriptors_do_not_stay(far: Far) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    before = len(os.listdir("/proc/self/fd"))
    far.send(b"forked", *fds)
    await far.hears()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert far.heard[0][0] == Forked()
    for fd in fds:
        os.close(fd)


@bounded
async def test_messages_down_are_marshalled_with_descriptors(far: Far) -> None:
    order = Collect(10, 1 << 20, 1.5)
    fd = os.open("/dev/null", os.O_RDONLY)
    far.link.send(order, [fd, fd])
    os.close(fd)
    data, fds, _, _ = socket.recv_fds(far.sock, 4096, 8)
    assert decode_order(data, Stop, Collect) == order
    assert len(fds) == 2
    for received in fds:
        os.close(received)


@bounded
async def test_send_to_one_who_is_gone(far: Far) -> None:
    far.sock.close()
    with pytest.raises(BrokenPipeError):
        far.link.send(Stop(0.0), [])


@bounded
async def test_send_to_one_who_does_not_read_never_waits(far: Far) -> None:
    def send_on() -> None:
        for _ in range(10_000):
            far.link.send(Stop(0.0), [])

    with pytest.raises(BlockingIOError):
        send_on()


@bounded
async def test_an_order_is_not_cut(far: Far) -> None:
    with pytest.raises(OSError, match="Message too long"):
        far.link.send(Configure(None, "installing", ("x" * 5000,)), [])


@bounded
async def test_close_twice(far: Far) -> None:
    far.link.close()
    far.link.close()
    assert far.link.far == -1
