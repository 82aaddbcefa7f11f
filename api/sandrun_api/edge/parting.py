"""The end of a connection whose client is still sending.

A socket that is closed with bytes unread makes the kernel reset the connection, and a client that sends all
before it reads loses the answer (RFC 9112, 9.6; RFC 1122, 4.2.2.13). So the server ends its own direction,
reads on and drops what comes, within bounds, and closes when the client has done so or has sent it all.
"""

import asyncio
from collections.abc import Callable
from typing import Any


class PartingTransport(asyncio.Transport):
    """A transport whose close() only ends our direction while `still_sends` holds.

    Then `is_parting` is set, nothing more can be written, and `end` closes it.
    """

    def __init__(self, wire: asyncio.Transport, still_sends: Callable[[], bool]) -> None:
        super().__init__()
        self.wire = wire
        self.is_parting = False
        self._still_sends = still_sends

    def close(self) -> None:
        """Close, or begin to part."""
        if self.is_closing():
            return
        if not self._still_sends():
            self.wire.close()
            return
        self.is_parting = True
        if self.wire.can_write_eof():  # TLS cannot: the client knows the answer's length
            self.wire.write_eof()
        self.wire.resume_reading()

    def end(self) -> None:
        """Close now."""
        self.wire.close()

    def is_closing(self) -> bool:
        """Whether close() was called, or the connection is lost."""
        return self.is_parting or self.wire.is_closing()

    def write(self, data: Any) -> None:
        """Write, unless our direction has ended."""
        if not self.is_parting:
            self.wire.write(data)

    def abort(self) -> None:
        """Close at once."""
        self.wire.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport knows of the connection."""
        return self.wire.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that reads the connection."""
        return self.wire.get_protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol read the connection."""
        self.wire.set_protocol(protocol)

    def pause_reading(self) -> None:
        """Read no more; not while parting."""
        if not self.is_parting:
            self.wire.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self.wire.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self.wire.get_write_buffer_size()
