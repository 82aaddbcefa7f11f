"""Reject a request without reading its body."""

from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandrun_api.errors import ApiError, count, respond


class Rejection(Response):
    """The answer of a rejected request; the connection is closed after it, in order (`protocols`)."""

    def __init__(self, error: ApiError, render: Callable[[ApiError], Response] = respond) -> None:
        answer = render(error)
        super().__init__(
            answer.body, error.status, {**error_headers(answer), "Connection": "close"}, "application/json"
        )
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and count it."""
        count(scope, self._error)
        await super().__call__(scope, receive, send)


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a request, or the handshake of a WebSocket, before the application sees it."""
    if scope["type"] == "http":
        await Rejection(error)(scope, receive, send)
        return
    count(scope, error)
    answer = respond(error)
    await send(
        {
            "type": "websocket.http.response.start",
            "status": answer.status_code,
            "headers": answer.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": answer.body})


def error_headers(answer: Response) -> dict[str, str]:
    """The header fields of an answer that are not about its body."""
    return {
        name: value
        for name, value in answer.headers.items()
        if name not in ("content-length", "content-type")
    }
