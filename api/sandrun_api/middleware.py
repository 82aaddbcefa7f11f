"""What every answer carries, and the last resort for an exception nobody expected. Pure ASGI."""

import logging
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandrun_api.errors import internal_error, respond

_log = logging.getLogger(__name__)

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)


class Guard:
    """Adds the security headers; turns an unexpected exception into a 500 that quotes nobody."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in _HEADERS if header[0] not in present),
                ]
            await send(message)

        try:
            await self.app(scope, receive, guarded)
        except Exception as error:
            report(error)
            if started:
                raise AbortedAnswer from None  # the server closes the connection: the client sees it was cut
            await respond(internal_error())(scope, receive, guarded)


class AbortedAnswer(Exception):
    """An answer could not be completed; the connection must not look as if it was."""


def report(error: BaseException) -> None:
    """Log where an exception came from, without its text, which may quote a client."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    _log.error("%s at %s", type(error).__name__, places)
