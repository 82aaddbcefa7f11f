"""The executor's end of a channel, with anything at the other."""

import array
import asyncio
import marshal
import os
import socket
from collections.abc import Callable, Coroutine

import pytest

from sandrun_executor.sandboxes.channel import Link, Words

SECONDS = 20.0


class Far:
    """The other side, and what the executor's side heard."""

    def __init__(self) -> None:
        self.link = Link()
        self.sock = socket.socket(fileno=os.dup(self.link.far))
        self.link.close_far()
        self.heard: list[tuple[Words, int | None]] = []
        self._came = asyncio.Event()
        self.link.listen(self._hear)

    def _hear(self, words: Words, fd: int | None) -> None:
        self.heard.append((words, fd))
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
async def test_reports_are_words(far: Far) -> None:
    far.send(b"exited 0 1")
    far.send(b"ready")
    await far.hears(2)
    assert far.heard == [(["exited", "0", "1"], None), (["ready"], None)]


@bounded
async def test_junk_is_words_too(far: Far) -> None:
    far.send(b"\xff\xfe\0 \n")
    far.send(b"a" * 5000)
    far.send(b"still here")
    await far.hears(3)
    assert all(
        ord(letter) < 128 or letter == "\ufffd" for words, _ in far.heard for word in words for letter in word
    )
    assert len(far.heard[1][0][0]) <= 256
    assert far.heard[2] == (["still", "here"], None)


@bounded
async def test_end_is_an_empty_list_once(far: Far) -> None:
    far.sock.close()
    await far.hears()
    await asyncio.wait({asyncio.get_running_loop().run_in_executor(None, int)})
    assert far.heard == [([], None)]


@bounded
async def test_far_end_dies_with_unread_messages(far: Far) -> None:
    far.link.send({"never": "read"}, [])
    far.sock.close()
    await far.hears()
    assert far.heard == [([], None)]


@bounded
async def test_descriptor_comes_along_and_is_not_inherited(far: Far) -> None:
    read_fd, write_fd = os.pipe()
    far.send(b"root", read_fd)
    os.close(read_fd)
    await far.hears()
    words, fd = far.heard[0]
    assert words == ["root"]
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.write(write_fd, b"x")
    os.close(write_fd)
    assert os.read(fd, 10) == b"x"


@bounded
async def test_too_many_descriptors_do_not_stay(far: Far) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    before = len(os.listdir("/proc/self/fd"))
    far.send(b"many", *fds)
    await far.hears()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert far.heard[0][0] == ["many"]
    for fd in fds:
        os.close(fd)


@bounded
async def test_messages_down_are_marshalled_with_descriptors(far: Far) -> None:
    message: dict[str, object] = {"a": 1, "b": b"bytes", "c": ["x", None, True, 1.5]}
    fd = os.open("/dev/null", os.O_RDONLY)
    far.link.send(message, [fd, fd])
    os.close(fd)
    data, fds, _, _ = socket.recv_fds(far.sock, 4096, 8)
    assert marshal.loads(data) == message
    assert len(fds) == 2
    for received in fds:
        os.close(received)


@bounded
async def test_send_to_one_who_is_gone(far: Far) -> None:
    far.sock.close()
    with pytest.raises(BrokenPipeError):
        far.link.send({}, [])


@bounded
async def test_send_to_one_who_does_not_read_never_waits(far: Far) -> None:
    def send_on() -> None:
        for _ in range(10_000):
            far.link.send({"x": b"x" * 1000}, [])

    with pytest.raises(BlockingIOError):
        send_on()


@bounded
async def test_close_twice(far: Far) -> None:
    far.link.close()
    far.link.close()
    assert far.link.far == -1
