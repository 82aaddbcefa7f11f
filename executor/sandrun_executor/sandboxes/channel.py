"""The executor's end of a channel to a process of a sandbox (sandrun_sandbox/messages.py)."""

import array
import asyncio
import errno
import os
import socket
from collections.abc import Callable

from sandrun_sandbox.messages import (
    ORDER_BYTES,
    REPORT_BYTES,
    MessageError,
    Order,
    Report,
    decode_report,
)

# A report, the error of one that may not come here, or None once the far end has hung up.
Heard = Report | MessageError | None


class Link:
    """A SOCK_SEQPACKET socket to a zygote or to a process of a sandbox."""

    def __init__(self) -> None:
        """Make the pair; `far` is the other side's descriptor, which `close_far` closes."""
        self._near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.far = far.detach()
        self._near.setblocking(False)
        self._reading = False

    def close_far(self) -> None:
        """Close our copy of the far end, once it has been handed over."""
        if self.far >= 0:
            os.close(self.far)
            self.far = -1

    def send(self, order: Order, fds: list[int]) -> None:
        """Send one order. Raises OSError if the other side has hung up or does not read."""
        data = order.encode()
        if len(data) > ORDER_BYTES:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._near.sendmsg([data], rights, socket.MSG_NOSIGNAL)

    def listen(self, kinds: tuple[type[Report], ...], hear: Callable[[Heard, int | None], None]) -> None:
        """Call hear with each report of one of these kinds and its descriptor, or with what went wrong."""
        self._reading = True
        # By number, because asyncio would format a socket object for an exception.
        asyncio.get_running_loop().add_reader(self._near.fileno(), self._readable, kinds, hear)

    def _readable(self, kinds: tuple[type[Report], ...], hear: Callable[[Heard, int | None], None]) -> None:
        try:
            data, ancillary, flags, _ = self._near.recvmsg(
                REPORT_BYTES, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except ConnectionResetError:
            data, ancillary, flags = b"", [], 0
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload)
        heard: Heard = None
        if data:
            try:
                heard = decode_report(data if not flags & socket.MSG_TRUNC else b"", *kinds)
            except MessageError as error:
                heard = error
        else:
            self._stop_reading()
        hear(heard, fds[0] if fds else None)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._near.fileno())

    def close(self) -> None:
        """Close whichever ends are still open here."""
        self._stop_reading()
        self._near.close()
        self.close_far()
