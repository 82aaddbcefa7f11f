"""uvicorn's protocols with the patience of a public server: every phase of a connection has its limit.

uvicorn itself limits only the pause between two requests, and waits for ever for a reader.
"""

import asyncio
import contextlib
import enum
import socket
import struct
import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from sandrun_api.edge.deadlines import Deadline
from sandrun_api.edge.messages import Connection, Malformed
from sandrun_api.edge.parting import PartingTransport
from sandrun_api.edge.raw_answers import REASONS, refusal
from sandrun_api.errors import ApiError
from sandrun_shared.settings import Api

LINGER_SECONDS = 5.0  # for a client to take the last bytes before the connection is cut
SURPLUS_SECONDS = 300.0  # for the rest of a body that was answered already
SURPLUS_UPLOADS = 4  # its bytes, as a multiple of the largest upload
SURPLUS_BYTES = 64 << 20  # or that much, if it is more
READ_BYTES = 64 << 10  # taken from a socket at a time
WRITE_BYTES = 32 << 10  # held for a client until it is not written to; TLS would have 512 KiB
TRY_AGAIN_LATER = 1013  # the close code of a reader that was too slow (IANA's registry)

_RESET = struct.pack("ii", 1, 0)  # struct linger (socket(7)): closing drops what was not sent


def cut(transport: asyncio.Transport) -> None:
    """End a connection at once; nothing of it stays, in the kernel's buffers either."""
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


class Phase(enum.Enum):
    """What a connection waits for."""

    head = enum.auto()  # the client: a request line and headers
    body = enum.auto()  # the client: the rest of a body
    surplus = enum.auto()  # the client: the rest of a body that was answered already
    answer = enum.auto()  # the application
    idle = enum.auto()  # the client may ask again
    parting = enum.auto()  # the client: the same, on a connection that we have ended
    closing = enum.auto()  # the client: to take what was sent


class HttpProtocol(H11Protocol):
    """HTTP/1.1 whose requests must arrive and whose answers must be read."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Api,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = Connection(limits.head_bytes)
        self._limits = limits
        self._phase = Phase.head
        self._arrival = Deadline(self.loop, self._late)
        self._reading = Deadline(self.loop, self._cut)
        self._surplus_left = max(SURPLUS_UPLOADS * limits.upload_bytes, SURPLUS_BYTES)
        self._surplus_until = 0.0
        self._parting: PartingTransport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a request."""
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        with contextlib.suppress(AttributeError):  # what may be read at once is held once more meanwhile
            transport.max_size = READ_BYTES  # type: ignore[attr-defined]
        self._parting = PartingTransport(transport, self._still_sends)
        super().connection_made(self._parting)
        self._arrival.set(self._limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget every limit."""
        self._arrival.close()
        self._reading.close()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._parting = None  # it and we would keep each other

    def data_received(self, data: bytes) -> None:
        """Parse, and see what to wait for now."""
        if self._parting is not None and self._parting.is_parting:
            self._drop(data)
            return
        before = self._phase
        super().data_received(data)
        self._watch(len(data) if self._phase is before else 0)

    def shutdown(self) -> None:
        """End the connection once it is answered; one that is parting now."""
        if self._parting is not None and self._parting.is_parting:
            self._end_parting()
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        """See what to wait for now."""
        super().on_response_complete()
        self._watch(0)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over."""
        self._arrival.close()
        self._reading.close()
        if self._parting is not None:
            self.transport = self._parting.wire
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._reading.set(self._limits.send_seconds)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._reading.clear()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._watch(0)

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed; called where h11's error is being handled."""
        error = sys.exc_info()[1]
        hint = getattr(error, "error_status_hint", 400)
        reason = error.reason if isinstance(error, Malformed) else None
        self._refuse(hint if hint in REASONS else 400, reason)

    def _still_sends(self) -> bool:
        """Whether closing now could take the answer away from a client that is sending."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR) or bool(self.conn.trailing_data[0])

    def _drop(self, data: bytes) -> None:
        if self.conn.their_state is h11.SEND_BODY:
            self.conn.receive_data(data)
            with contextlib.suppress(h11.RemoteProtocolError):
                while isinstance(self.conn.next_event(), h11.Data):
                    pass
            if self.conn.their_state not in (h11.SEND_BODY, h11.ERROR):
                self._end_parting()  # it has sent all of it
                return
        self._watch(len(data))

    def _end_parting(self) -> None:
        if self._parting is not None and not self._parting.get_write_buffer_size():
            self._parting.end()
        else:
            cut(self.transport)

    def _now(self) -> Phase:
        if self._parting is not None and self._parting.is_parting and not self._parting.wire.is_closing():
            return Phase.parting
        if self.transport.is_closing():
            return Phase.closing
        theirs = self.conn.their_state
        if theirs is h11.IDLE:
            return Phase.head if self.cycle is None or self.conn.trailing_data[0] else Phase.idle
        if theirs is h11.SEND_BODY:
            return Phase.surplus if self.cycle.response_complete else Phase.body
        return Phase.answer

    def _watch(self, received: int) -> None:
        if self.transport.get_protocol() is not self:
            return  # a WebSocket now
        before, self._phase = self._phase, self._now()
        limits = self._limits
        if self._phase is before:
            if before is Phase.body:
                self._arrival.extend(received / limits.body_bytes_per_second, limits.body_seconds)
            elif before in (Phase.surplus, Phase.parting):
                self._go_on(received)
            return
        match self._phase:
            case Phase.head:
                self._arrival.set(limits.head_seconds)
            case Phase.body:
                self._arrival.set(limits.body_seconds)
            case Phase.surplus | Phase.parting:
                self._surplus_until = self.loop.time() + SURPLUS_SECONDS
                sends = self.conn.their_state is h11.SEND_BODY
                self._arrival.set(limits.body_seconds if sends else LINGER_SECONDS)
            case Phase.closing:
                self._arrival.set(LINGER_SECONDS)
            case _:
                self._arrival.clear()

    def _go_on(self, received: int) -> None:
        """Let more come of what nobody reads: not slowly, not for ever, and not without an end."""
        self._surplus_left -= received
        if self._surplus_left < 0:
            self._late()
            return
        most = min(self._limits.body_seconds, self._surplus_until - self.loop.time())
        self._arrival.extend(received / self._limits.body_bytes_per_second, max(most, 0.0))

    def _late(self) -> None:
        match self._phase:
            case Phase.closing:
                cut(self.transport)
            case Phase.parting:
                self._end_parting()
            case Phase.body if self.flow.read_paused:
                self._arrival.set(self._limits.body_seconds)  # it is we who do not read
            case Phase.head if not self.conn.trailing_data[0]:
                self.transport.close()  # it never asked
                self._watch(0)
            case _:
                self._refuse(408)

    def _refuse(self, status: int, reason: str | None = None) -> None:
        begun = self.cycle is not None and self.cycle.response_started
        if begun and (not self.cycle.response_complete or self._phase is Phase.surplus):
            cut(self.transport)  # anything more would be read as part of that answer
            return
        if not self.transport.is_closing():
            self.transport.write(refusal(ApiError(status, reason or REASONS[status])))
            self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the application waits for more of the body
            self.cycle.message_event.set()
        self._watch(0)

    def _cut(self) -> None:
        cut(self.transport)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSockets whose readers must read."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Api,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._reading = Deadline(self.loop, self._too_slow)
        self._closing = Deadline(self.loop, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget every limit."""
        self._reading.close()
        self._closing.close()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._reading.set(self._limits.send_seconds)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._reading.clear()

    def handle_ping(self) -> None:
        """Answer, unless the client does not read: its pings must not fill our memory with pongs."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    async def send(self, message: Any) -> None:
        """Send; an answer in place of the handshake ends it, which uvicorn would report as a fault."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = self.close_sent = True

    def keepalive_timeout(self) -> None:
        """Close a connection whose client is gone."""
        super().keepalive_timeout()
        self._closing.set(LINGER_SECONDS)

    async def run_asgi(self) -> None:
        """Run the application; then the client has a while to take the rest."""
        try:
            await super().run_asgi()
        finally:
            if not self.disconnected:
                self._closing.set(self.close_timeout + LINGER_SECONDS)

    def _too_slow(self) -> None:
        self.stop_keepalive()
        if self.handshake_complete and not self.close_sent:
            # Behind what it did not read; no more than this little is added.
            self.conn.send_close(TRY_AGAIN_LATER, "too slow")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": TRY_AGAIN_LATER})
        self.disconnected = True
        self.writable.set()
        self._closing.set(LINGER_SECONDS)

    def _cut(self) -> None:
        cut(self.transport)
