"""Messages and descriptors over real socket pairs."""

import array
import os
import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_shared import framing, protocol

DECODER = msgspec.msgpack.Decoder(protocol.Execute | protocol.Describe | protocol.Output)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_message_and_descriptors_arrive(pair: tuple[socket.socket, socket.socket]) -> None:
    memfd = os.memfd_create("test")
    framing.send(pair[0], protocol.Describe(), (memfd,))
    received = framing.receive(pair[1], DECODER)
    assert received is not None
    message, fds = received
    assert message == protocol.Describe()
    assert os.fstat(fds[0]).st_ino == os.fstat(memfd).st_ino
    assert not os.get_inheritable(fds[0])
    framing.close_all([*fds, memfd])


def test_packets_keep_their_boundaries(pair: tuple[socket.socket, socket.socket]) -> None:
    sent = [protocol.Output(1, b"x" * number) for number in range(3)]
    for message in sent:
        framing.send(pair[0], message)
    assert [framing.receive(pair[1], DECODER) for _ in sent] == [(message, []) for message in sent]


def test_none_at_end_of_file(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert framing.receive(pair[1], DECODER) is None


def test_empty_nonblocking_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        framing.receive(pair[1], DECODER)


def test_too_large_is_not_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(framing.FrameError):
        framing.send(pair[0], protocol.Output(1, bytes(framing.MAX_FRAME)))


def test_one_chunk_fits(pair: tuple[socket.socket, socket.socket]) -> None:
    framing.send(pair[0], protocol.Output(2**40, bytes(framing.CHUNK)))
    assert framing.receive(pair[1], DECODER) is not None


def test_truncated_packet_is_refused_and_its_descriptors_closed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    before = open_descriptors()
    fds = array.array("i", [pair[0].fileno()])
    pair[0].sendmsg([bytes(framing.MAX_FRAME + 1)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    with pytest.raises(framing.FrameError):
        framing.receive(pair[1], DECODER)
    assert open_descriptors() == before


@pytest.mark.parametrize("extra", [1, 2, 60])
def test_too_many_descriptors_are_all_closed(pair: tuple[socket.socket, socket.socket], extra: int) -> None:
    before = open_descriptors()
    framing.send(pair[0], protocol.Describe(), (pair[0].fileno(),) * (framing.MAX_FDS + extra))
    with pytest.raises(framing.FrameError):
        framing.receive(pair[1], DECODER)
    assert open_descriptors() == before


@given(garbage=st.binary(min_size=1, max_size=300))
def test_garbage_is_refused(garbage: bytes) -> None:
    """Whatever arrives is a message or a FrameError, and no descriptor stays open."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        before = open_descriptors()
        fds = array.array("i", [left.fileno()])
        left.sendmsg([garbage], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        try:
            received = framing.receive(right, DECODER)
        except framing.FrameError:
            received = None
        if received is not None:
            framing.close_all(received[1])
        assert open_descriptors() == before


def test_unknown_fields_are_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].send(msgspec.msgpack.encode({"type": "Describe", "version": 1, "more": 1}))
    with pytest.raises(framing.FrameError, match="more"):
        framing.receive(pair[1], DECODER)


def test_job_id_is_checked(pair: tuple[socket.socket, socket.socket]) -> None:
    order = {"type": "Execute", "job_id": "../x", "interpreter": "python3", "limits": {}}
    pair[0].send(msgspec.msgpack.encode(order))
    with pytest.raises(framing.FrameError, match="job_id"):
        framing.receive(pair[1], DECODER)
