"""How the processes of a sandbox handle an order that is not for them."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from sandrun_sandbox import init, zygote
from sandrun_sandbox.channel import Channel
from sandrun_sandbox.messages import Collect, Configure, Order, Spawn, Stop, TmpfsLimits

SECONDS = 20.0


class Root:
    """The executor's end of a channel, and the other for a process that is tried."""

    def __init__(self) -> None:
        self.near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.settimeout(SECONDS)

    def channel(self) -> Channel:
        """What such a process has."""
        return Channel(os.dup(self._far.fileno()))

    def send(self, order: Order, descriptors: int = 0) -> None:
        """Send an order with some descriptors."""
        with open("/dev/null", "rb") as null:
            socket.send_fds(self.near, [order.encode()], [null.fileno()] * descriptors)

    def close(self) -> None:
        """Hang up."""
        self.near.close()
        self._far.close()


@pytest.fixture
def root() -> Iterator[Root]:
    one = Root()
    yield one
    one.close()


def answer_of(root: Root, process: Callable[[Channel], object]) -> tuple[bytes, int]:
    """Let a process read one order; returns its reports and exit code, 70 if it does not exit by itself."""
    pid = os.fork()
    if pid == 0:
        try:
            process(root.channel())
        finally:
            os._exit(70)
    said = root.near.recv(300)
    return said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("order", "descriptors", "said"),
    [
        (Collect(1, 1, 1.0), 5, b"failed message_collect 0"),
        (Stop(1.0), 1, b"failed message_stop 0"),
        (Configure(None, "installing", ("uv",)), 1, b"failed message_configure 0"),
        (Configure(None, "layer", ("uv",)), 1, b"failed message_configure 0"),
    ],
)
def test_pid_1_ends_over_an_order_that_it_cannot_obey(
    root: Root, order: Order, descriptors: int, said: bytes
) -> None:
    root.send(order, descriptors)
    assert answer_of(root, lambda link: init._heed({}, link)) == (said, 1)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (Stop(1.0), b"failed message_stop 0"),
        (Spawn(-1, False, TmpfsLimits(1, 1, 1), None, False), b"failed message_spawn 0"),
    ],
)
def test_a_zygote_ends_over_an_order_that_it_cannot_obey(root: Root, order: Order, said: bytes) -> None:
    root.send(order, 3)
    assert answer_of(root, zygote._next_request) == (said, 1)


def test_a_stop_that_crosses_the_jobs_end_keeps_no_outputs_back(root: Root) -> None:
    root.send(Stop(0.0))
    root.send(Collect(1, 2, 3.0), 5)
    link = root.channel()
    asked = init._asked_to_collect(link)
    link.close()
    assert asked is not None
    request, fds = asked
    for fd in fds:
        os.close(fd)
    assert (request, len(fds)) == (Collect(1, 2, 3.0), 5)


def test_nothing_is_collected_for_an_executor_that_is_gone(root: Root) -> None:
    link = root.channel()
    root.close()
    assert init._asked_to_collect(link) is None
    link.close()
