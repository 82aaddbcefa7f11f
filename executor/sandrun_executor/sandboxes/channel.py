"""The executor's end of a sandbox channel: dictionaries of its own down, short ASCII lines up."""

import array
import asyncio
import marshal
import os
import socket
from collections.abc import Callable

Words = list[str]
_ROOM = 256  # bytes; a report is a few words, anything longer is cut and refused
_MARSHAL_VERSION = 2  # the oldest that has every type used here, the same on all supported CPythons


class Link:
    """A SOCK_SEQPACKET socket to a zygote or to a process of a sandbox."""

    def __init__(self) -> None:
        """Make the pair; `far` is the descriptor for the other side, closed by `close_far`."""
        self._near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.far = far.detach()
        self._near.setblocking(False)
        self._reading = False

    def close_far(self) -> None:
        """Forget our copy of the other side's end, once it has been handed over."""
        if self.far >= 0:
            os.close(self.far)
            self.far = -1

    def send(self, message: dict[str, object], fds: list[int]) -> None:
        """Send one message. Raises OSError when the other side is gone or does not read."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._near.sendmsg([marshal.dumps(message, _MARSHAL_VERSION)], rights, socket.MSG_NOSIGNAL)

    def listen(self, on_words: Callable[[Words, int | None], None]) -> None:
        """Call on_words with each report and its descriptor; with an empty list when the far end is gone."""
        self._reading = True
        # By number: asyncio puts the text of a socket object into an exception on the way.
        asyncio.get_running_loop().add_reader(self._near.fileno(), self._readable, on_words)

    def _readable(self, on_words: Callable[[Words, int | None], None]) -> None:
        try:
            data, ancillary, _, _ = self._near.recvmsg(_ROOM, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data, ancillary = b"", []
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload)
        if not data:
            self._stop_reading()
        on_words(data.decode("ascii", "replace").split(), fds[0] if fds else None)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._near.fileno())

    def close(self) -> None:
        """Close both ends that are still ours."""
        self._stop_reading()
        self._near.close()
        self.close_far()
