"""Answers that hold a job's bytes: sent in pieces, as fast as the client reads, and under a lease.

Neither the size of an answer nor the number of readers decides how much memory the server needs for them:
a reader that does not read makes it hold one piece and what the transport buffers.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandrun_api.edge.delivery import delivered, transport_of
from sandrun_api.edge.json_pieces import encoded, gathered
from sandrun_api.jobs import truncation
from sandrun_api.jobs.model import Job

JSON = "application/json"
PLAIN_TEXT = "text/plain; charset=utf-8"


class JobResponse(Response):
    """Streams a job's bytes under a lease; `sent` is called when the client's machine has everything."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        lease: Callable[[], Callable[[], None]],
        *,
        status: int = 200,
        headers: dict[str, str],
        media_type: str,
        sent: Callable[[], None] | None = None,
        patience_seconds: float = 20.0,
    ) -> None:
        self._lease = lease
        self._pieces = pieces
        self._sent = sent
        self._patience_seconds = patience_seconds
        self.status_code = status
        self.media_type = media_type
        self.background = None
        self.body = b""
        self.init_headers(headers)

    def init_headers(self, headers: object = None) -> None:
        """As Response does, without a length that is not known from the body."""
        given = dict(headers) if isinstance(headers, dict) else {}
        given.setdefault("content-type", str(self.media_type))
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, unless the client leaves."""

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        end = self._lease()
        watcher = asyncio.create_task(gone())
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            async for piece in self._pieces:
                if watcher.done():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)  # a reader that keeps up would have all the loop's time
            # Asked before the last message: afterwards every client counts as gone.
            transport = transport_of(receive) if self._sent is not None else None
            if transport is not None and not await delivered(transport, self._patience_seconds):
                transport.abort()
                await watcher
                return
            left = watcher.done()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            if self._sent is not None and not left:
                self._sent()
        finally:
            watcher.cancel()
            end()


def job_document(
    job: Job, body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer of the job's texts and lists (`json_pieces`). Call it before the job is deleted."""
    return _answer(job, encoded(body), status, dict(headers or {}), JSON)


def job_text(job: Job, start: int = 0, headers: Mapping[str, str] | None = None) -> Response:
    """Both streams from a position on, as they came. Call it before the job is deleted."""
    length = {"content-length": str(job.logs.size - start)}
    pieces = job.logs.bytes_of(start=start).chunks()
    return _answer(job, pieces, 200, {**(headers or {}), **truncation.header(job), **length}, PLAIN_TEXT)


def _answer(
    job: Job, pieces: Iterator[bytes], status: int, headers: dict[str, str], media_type: str
) -> Response:
    large = gathered(pieces)
    first, second = next(large, b""), next(large, None)
    if second is None:
        return Response(first, status, headers, media_type)
    end = job.lease()  # now: the job may be deleted before the first piece is sent
    return JobResponse(
        at_once(chain((first, second), large)),
        lambda: end,
        status=status,
        headers=headers,
        media_type=media_type,
    )


async def at_once(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, for what takes them asynchronously."""
    for piece in pieces:
        yield piece
