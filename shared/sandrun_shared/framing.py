"""Messages and file descriptors on a Unix SOCK_SEQPACKET socket.

The kernel keeps message boundaries and attaches descriptors to exactly one message (unix(7)). Therefore a
frame is a packet, with no length field to trust and nothing to reassemble.
"""

import array
import os
import socket
from typing import TypeVar

import msgspec

MAX_FRAME = 96 << 10  # bytes; fits the default SO_SNDBUF of 208 KiB, in which a packet counts double
MAX_FDS = 4
CHUNK = 64 << 10  # bytes of job output in one message

T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


class FrameError(Exception):
    """The peer's packet is too large, cannot be decoded, or has too many descriptors."""


def encode(message: msgspec.Struct) -> bytes:
    """Encode one message. Raises FrameError above MAX_FRAME."""
    data = _encoder.encode(message)
    if len(data) > MAX_FRAME:
        raise FrameError(f"message of {len(data)} bytes, at most {MAX_FRAME}")
    return data


def send(sock: socket.socket, message: msgspec.Struct, fds: tuple[int, ...] = ()) -> None:
    """Send one message with descriptors; BlockingIOError on a full non-blocking socket (sendmsg(2))."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([encode(message)], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, decoder: "msgspec.msgpack.Decoder[T]") -> tuple[T, list[int]] | None:
    """Receive one message and its descriptors (close-on-exec), or None at end of file.

    Raises FrameError, closing the descriptors, for a packet that was truncated or cannot be decoded;
    BlockingIOError on an empty non-blocking socket.
    """
    data, ancillary, flags, _ = sock.recvmsg(
        MAX_FRAME, socket.CMSG_SPACE(4 * MAX_FDS), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise FrameError(f"packet above {MAX_FRAME} bytes or {MAX_FDS} descriptors")
        if not data and not fds:
            return None
        message = decoder.decode(data)
    except (FrameError, msgspec.DecodeError) as error:
        close_all(list(fds))
        raise FrameError(str(error)) from None
    return message, list(fds)


def close_all(fds: list[int]) -> None:
    """Close every descriptor in the list and empty it."""
    while fds:
        os.close(fds.pop())
