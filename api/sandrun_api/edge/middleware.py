"""What every answer carries, and the last resort for an exception nobody expected. Pure ASGI."""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandrun_api.edge.raw_answers import REASONS
from sandrun_api.edge.reject import Rejection
from sandrun_api.errors import ApiError, internal_error, respond

_log = logging.getLogger(__name__)

TARGET_BYTES = 8192  # of a path and its query
HEAD_BYTES = 32 << 10
_TOO_LONG = f"The address of a request has at most {TARGET_BYTES} bytes."
_CODED = "A body is taken as it is: send it without a Content-Encoding."
_CLOSE = {"Connection": "close"}
_CLOSING = (b"connection", b"close")
FIRST_ERROR = 400
YEAR_SECONDS = 365 * 86400
_ALLOW = "GET, HEAD, POST, DELETE, OPTIONS"

_FRAMES = (b"x-frame-options", b"DENY")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    _FRAMES,
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox")
# For a page that states no policy: it may run what it brings, and may not be framed.
_PAGE_POLICY = (_POLICY[0], b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")
_TLS = (b"strict-transport-security", b"max-age=%d" % YEAR_SECONDS)


class Guard:
    """Adds the security headers; turns an unexpected exception into a 500 that quotes nobody.

    `answered` is told the status of every answer; `secure` says that the connection is TLS.
    """

    def __init__(
        self,
        app: ASGIApp,
        answered: Callable[[Scope, int], None] = lambda *_: None,
        secure: bool = False,
        head_bytes: int = HEAD_BYTES,
    ) -> None:
        self.app = app
        self._answered = answered
        self._head_bytes = head_bytes
        self._headers = (*_HEADERS, _TLS) if secure else _HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await self.app(scope, receive, self._counting(scope, send))
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        # A client that waits for 100 (Continue) may keep its body or send it after an error: nobody can
        # know which of the two comes next, so the connection ends (RFC 9110, 10.1.1).
        expects = any(name == b"expect" for name, _ in scope.get("headers", ()))

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = self._with_headers(message["headers"])
                if expects and message["status"] >= FIRST_ERROR:
                    message["headers"] = [*message["headers"], _CLOSING]
                self._answered(scope, message["status"])
            await send(message)

        try:
            await (self._answer(scope) or self.app)(scope, receive, guarded)
        except Exception as error:
            report(error)
            if started:
                raise AbortedAnswer from None  # the server closes the connection: the client sees it was cut
            await respond(internal_error())(scope, receive, guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """What is answered to a request that need not reach the application."""
        error = self._too_long(scope)
        if error is not None:
            return respond(error)
        for name, value in scope.get("headers", ()):
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                error = ApiError(415, _CODED, headers={"Accept-Encoding": "identity"})
                return Rejection(error)
        if scope.get("path") == "*":  # of the server as a whole (RFC 9110, 9.3.7)
            return Response(None, 204, {"Allow": _ALLOW})
        return None

    def _too_long(self, scope: Scope) -> ApiError | None:
        # The server's parser limits only what it has not read to the end yet.
        target = len(scope.get("raw_path", b"")) + len(scope.get("query_string", b""))
        if target > TARGET_BYTES:
            return ApiError(414, _TOO_LONG, headers=_CLOSE)
        head = target + sum(len(name) + len(value) + 4 for name, value in scope.get("headers", ()))
        if head > self._head_bytes:
            return ApiError(431, REASONS[431], headers=_CLOSE)
        return None

    def _with_headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        present = {name.lower(): value for name, value in headers}
        is_page = present.get(b"content-type", b"").startswith(b"text/html")
        added = (*self._headers, _PAGE_POLICY if is_page else _POLICY)
        if may_be_framed(present.get(_POLICY[0], _POLICY[1])):
            added = tuple(header for header in added if header[0] != _FRAMES[0])
        return [*headers, *(header for header in added if header[0] not in present)]

    def _counting(self, scope: Scope, send: Send) -> Send:
        async def counting(message: Message) -> None:
            if message["type"] == "websocket.accept":
                self._answered(scope, 101)
            await send(message)

        return counting


class Head:
    """Answers HEAD as GET, without the body and without what GET does after it (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        # Ranges are of GET only (RFC 9110, 14.2).
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        answered = asyncio.Event()

        async def begin(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                answered.set()
                await asyncio.Event().wait()  # for its end: nothing may follow

        serving = asyncio.ensure_future(
            self.app({**scope, "method": "GET", "headers": headers}, receive, begin)
        )
        waiting = asyncio.ensure_future(answered.wait())
        try:
            await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not answered.is_set():
                await serving
        finally:
            for task in (serving, waiting):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


class AbortedAnswer(Exception):
    """An answer could not be completed; the connection must not look as if it was."""


def may_be_framed(policy: bytes) -> bool:
    """Whether a Content-Security-Policy names pages that may frame its own."""
    for directive in policy.split(b";"):
        name, _, sources = directive.strip().partition(b" ")
        if name.lower() == b"frame-ancestors":
            return sources.strip() != b"'none'"
    return False


def report(error: BaseException) -> None:
    """Log where an exception came from, without its text, which may quote a client."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    _log.error("%s at %s", type(error).__name__, places)
