"""Servers reached with httpx: the transport of the synchronous client, and the whole asynchronous driver."""

import contextlib
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import httpx

from sandrun_client.drivers import Body, Opened, Steps
from sandrun_client.errors import ConnectionFailed, UnexpectedAnswer
from sandrun_client.exchange import (
    Call,
    Close,
    Effect,
    Emit,
    Flow,
    Open,
    Progress,
    Read,
    Reply,
    Request,
    Send,
    Sleep,
)

T = TypeVar("T")

CLEANUP_SECONDS = 5.0  # for what an operation still does after it was cancelled
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class _Counted(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that tells how much of it was sent."""

    def __init__(self, body: Any, total: int | None, progress: Progress) -> None:
        self._body = body
        self._total = total
        self._progress = progress

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        for piece in self._body:
            # Told before: the last piece is sent once the next one is asked for.
            self._progress(done, self._total)
            yield piece
            done += len(piece)
        self._progress(done, self._total)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def _built(
    http: httpx.Client | httpx.AsyncClient, request: Request, progress: Progress | None
) -> httpx.Request:
    timeout = httpx.Timeout(http.timeout)
    if request.read_seconds is not None:
        timeout.read = request.read_seconds
    files: list[tuple[str, Any]] | None = None
    if request.upload is not None:
        upload = request.upload
        files = [("files", (upload.name, upload.file, "application/octet-stream"))]
        if upload.manifest is not None:
            files.insert(0, ("manifest", (None, json.dumps(upload.manifest).encode(), "application/json")))
    built = http.build_request(
        request.method,
        request.path,
        params=dict(request.params) or None,
        headers=dict(request.headers),
        json=request.json,
        files=files,
        timeout=timeout,
    )
    if progress is not None:
        length = built.headers.get("content-length")
        built.stream = _Counted(built.stream, int(length) if length else None, progress)
    return built


@contextlib.contextmanager
def _mapped(url: httpx.URL) -> Iterator[None]:
    """The HTTP library's errors as ours."""
    try:
        yield
    except httpx.TransportError as error:
        sent = not isinstance(error, _NOT_SENT)
        what = "The connection to {} broke" if sent else "{} cannot be reached"
        where = what.format(str(url).rstrip("/"))
        raise ConnectionFailed(f"{where}: {_text(error)}.", sent=sent, host=url.host) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise UnexpectedAnswer(f"The answer of {url} cannot be read: {_text(error)}") from error


def _text(error: Exception) -> str:
    """What the library says, without the system's number of it."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)).rstrip(".") or type(error).__name__


def _headers(response: httpx.Response) -> dict[str, str]:
    return {key.lower(): value for key, value in response.headers.items()}


@dataclass
class _Opened:
    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]
    close: Callable[[], None]


class HttpxTransport:
    """Reaches a server with httpx.Client."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def open(self, request: Request, progress: Progress | None) -> Opened:
        """Send a request, and read the head of its answer."""
        response = self._http.send(_built(self._http, request, progress), stream=True)
        return _Opened(response.status_code, _headers(response), response.iter_bytes(), response.close)

    def mapped(self) -> AbstractContextManager[None]:
        """Errors of httpx as ours."""
        return _mapped(self._http.base_url)


def _reply(response: httpx.Response, body: bytes = b"") -> Reply:
    return Reply(response.status_code, _headers(response), body)


class AsyncDriver:
    """Drives operations with httpx.AsyncClient."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def run(self, flow: Flow[T]) -> T:
        """Do what the operation asks until it returns."""
        result: list[T] = []
        async with contextlib.aclosing(self.iterate(flow, result)) as items:
            async for _ in items:
                pass
        return result[0]

    async def iterate(self, flow: Flow[T], result: list[T] | None = None) -> AsyncGenerator[Any, None]:
        """The items that the operation emits; what it returns is added to result."""
        opened = _AsyncAnswer()
        steps = Steps(flow)
        cancelled = False
        try:
            while True:
                try:
                    effect = steps.next()
                except StopIteration as stop:
                    if result is not None:
                        result.append(stop.value)
                    return
                if isinstance(effect, Emit):
                    yield effect.value
                    continue
                try:
                    # After a cancellation every wait would be cancelled again, but one that is shielded.
                    limit = CLEANUP_SECONDS if cancelled else math.inf
                    with anyio.fail_after(limit, shield=cancelled):
                        steps.answer = await self._perform(effect, opened)
                except BaseException as error:  # the operation may want to tidy up
                    cancelled = cancelled or not isinstance(error, Exception)
                    steps.error = error
        finally:
            flow.close()
            with anyio.CancelScope(shield=True):
                await opened.close()

    async def _perform(self, effect: Effect, opened: "_AsyncAnswer") -> Any:
        answer: Any = None
        with _mapped(self._http.base_url):
            match effect:
                case Send(request, progress):
                    answer = await self._send(_built(self._http, request, progress))
                case Open(request):
                    await opened.close()
                    response = await self._http.send(_built(self._http, request, None), stream=True)
                    opened.response, opened.pieces = response, response.aiter_bytes()
                    body = b"" if response.status_code < 300 else await self._read(opened.pieces)
                    answer = _reply(response, body)
                case Read():
                    answer = b"" if opened.pieces is None else await anext(opened.pieces, b"")
                case Close():
                    await opened.close()
                case Sleep(seconds):
                    await anyio.sleep(seconds)
                case Call(function):
                    answer = await anyio.to_thread.run_sync(function)
        return answer

    async def _send(self, request: httpx.Request) -> Reply:
        response = await self._http.send(request, stream=True)
        try:
            return _reply(response, await self._read(response.aiter_bytes()))
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    @staticmethod
    async def _read(pieces: AsyncIterator[bytes]) -> bytes:
        body = Body()
        async for piece in pieces:
            body.add(piece)
        return bytes(body)


class _AsyncAnswer:
    def __init__(self) -> None:
        self.response: httpx.Response | None = None
        self.pieces: AsyncIterator[bytes] | None = None

    async def close(self) -> None:
        response, self.response, self.pieces = self.response, None, None
        if response is not None:
            await response.aclose()
