"""The socket between the executor and one process of a sandbox.

Downwards: marshalled dictionaries of our own numbers and names, with descriptors. Upwards: a short line of
ASCII words. Neither direction ever carries a byte that a client wrote.
"""

from __future__ import annotations

import _socket
import marshal
import struct

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from typing import Any

_ROOM = 4096
_MAX_FDS = 16
_RIGHTS = _socket.SCM_RIGHTS


class Channel:
    """One end of a SOCK_SEQPACKET pair."""

    def __init__(self, fd: int) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._socket.fileno()

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its descriptors, or None when the executor hung up."""
        data, ancillary, _, _ = self._socket.recvmsg(
            _ROOM, _socket.CMSG_SPACE(4 * _MAX_FDS), _socket.MSG_CMSG_CLOEXEC
        )
        fds = [
            fd
            for level, kind, payload in ancillary
            if (level, kind) == (_socket.SOL_SOCKET, _RIGHTS)
            for (fd,) in struct.iter_unpack("i", payload)
        ]
        return (marshal.loads(data), fds) if data else None  # noqa: S302 (written by the executor)

    def report(self, words: str, fd: int | None = None) -> None:
        """Send a line to the executor, with a descriptor. A peer that is gone is not an error."""
        rights = [(_socket.SOL_SOCKET, _RIGHTS, struct.pack("i", fd))] if fd is not None else []
        try:  # noqa: SIM105 (contextlib would be one more module in every job's interpreter)
            self._socket.sendmsg([words.encode("ascii")], rights, _socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
