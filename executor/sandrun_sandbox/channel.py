"""The socket between the executor and one process of a sandbox; it carries the messages of messages.py."""

from __future__ import annotations

import _socket
import struct

from sandrun_sandbox.messages import MAX_DESCRIPTORS, ORDER_BYTES, MessageError, decode_order

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from sandrun_sandbox.messages import D, Report

_RIGHTS = _socket.SCM_RIGHTS


class Channel:
    """One end of a SOCK_SEQPACKET pair."""

    def __init__(self, fd: int) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._socket.fileno()

    def receive(self, *kinds: type[D]) -> tuple[D, list[int]] | None:
        """Receive an order of one of these kinds and its descriptors; None if the executor hung up.

        Raises MessageError for any other.
        """
        data, ancillary, _, _ = self._socket.recvmsg(
            ORDER_BYTES, _socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), _socket.MSG_CMSG_CLOEXEC
        )
        fds = [
            fd
            for level, kind, payload in ancillary
            if (level, kind) == (_socket.SOL_SOCKET, _RIGHTS)
            for (fd,) in struct.iter_unpack("i", payload)
        ]
        if not data:
            return None
        order = decode_order(data, *kinds)
        if not order.takes(len(fds)):
            raise MessageError(order.NAME)
        return order, fds

    def report(self, report: Report, fd: int | None = None) -> None:
        """Send a report to the executor, with a descriptor; ignores a peer that hung up."""
        rights = [(_socket.SOL_SOCKET, _RIGHTS, struct.pack("i", fd))] if fd is not None else []
        try:  # noqa: SIM105 (contextlib would be one more module in every job's interpreter)
            self._socket.sendmsg([report.encode()], rights, _socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
