"""An answer given before the request's body was read."""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandrun_api.errors import ApiError, respond

DRAIN_BYTES = 16 << 20
DRAIN_SECONDS = 5.0


class EarlyRefusal(Response):
    """An error that does not wait for the body; the connection closes after it.

    What the client is sending meanwhile is read and dropped, within bounds: a connection closed with
    bytes unread is reset, and the client might never see the answer (RFC 9112, 9.6). A client that
    waits for 100 (Continue) sends nothing.
    """

    def __init__(
        self, request: Request, error: ApiError, render: Callable[[ApiError], Response] = respond
    ) -> None:
        answer = render(error)
        super().__init__(
            answer.body, error.status, {**error_headers(answer), "Connection": "close"}, "application/json"
        )
        self._waits = request.headers.get("expect", "").lower() == "100-continue"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, then drain."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # Whole by its Content-Length; the message that ends it also closes the connection.
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        if not self._waits:
            await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def error_headers(answer: Response) -> dict[str, str]:
    """The header fields of an answer that are not about its body."""
    return {
        name: value
        for name, value in answer.headers.items()
        if name not in ("content-length", "content-type")
    }


async def _drain(receive: Receive) -> None:
    drained = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while drained < DRAIN_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except TimeoutError:
        pass
