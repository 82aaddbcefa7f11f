"""A job's output as messages: the JSON of one event, and server-sent events (HTML Living Standard, 9.2)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sandrun_api.edge.json_pieces import encoded, gathered
from sandrun_api.jobs.following import Follower, Text
from sandrun_api.jobs.logs import STDOUT
from sandrun_api.jobs.model import Job
from sandrun_shared.jobs import Verdict

YIELD_BYTES = 4096
HEARTBEAT = b": heartbeat\n\n"
RETRY = b"retry: 1000\n\n"  # milliseconds after which a browser connects again
DESCRIPTION = (
    "Unnamed events carry output, their `id` is the sequence; lines that begin with a colon only show that "
    "the connection is alive; the last event is `finished` and says how the job ended. A stream that ends "
    "without it was cut, or its job was deleted."
)

# Of one event, as there is no schema for a stream of them before OpenAPI 3.2.
EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": DESCRIPTION,
    "required": ["id", "data"],
    "properties": {
        "id": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "The sequence: bytes of both streams up to here. `Last-Event-ID` takes it.",
        },
        "event": {
            "enum": ["message", "finished"],  # the former when the stream names none
            "description": "`finished` for the last event; the others are unnamed.",
        },
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "JSON: `stream`, `sequence` and `data` of some output, or how the job ended.",
        },
    },
}
EXAMPLE = {
    "id": "6",
    "data": '{"type":"output","stream":"stdout","sequence":6,"data":"hello\\n"}',
}


class EventStream(StreamingResponse):
    """An answer of a job's server-sent events, under a lease.

    `ended` is called however it ends, a client that left included.
    """

    def __init__(
        self,
        job: Job,
        events: AsyncIterator[bytes],
        headers: dict[str, str] | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        # nginx passes events on at once only when told so.
        super().__init__(
            _in_turn(events),
            headers={"X-Accel-Buffering": "no", **(headers or {})},
            media_type="text/event-stream",
        )
        self._job = job
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        end = self._job.lease()
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()
            end()


async def _in_turn(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events; others get a turn between long ones, and with them the news that the reader has left."""
    async for event in events:
        yield event
        if len(event) > YIELD_BYTES:
            await asyncio.sleep(0)


def output_message(text: Text) -> bytes:
    """The JSON of some output."""
    name = "stdout" if text.stream == STDOUT else "stderr"
    return msgspec.json.encode(
        {"type": "output", "stream": name, "sequence": text.sequence, "data": text.text}
    )


def finished_message(status: dict[str, Any]) -> Iterator[bytes]:
    """The JSON that says how the job ended, in pieces."""
    return gathered(encoded({"type": "finished", **status}))


def finished_event(sequence: int, status: dict[str, Any]) -> Iterator[bytes]:
    """The last server-sent event, in pieces."""
    yield b"id: %d\nevent: finished\ndata: " % sequence
    yield from finished_message(status)
    yield b"\n\n"


async def output_events(job: Job, follower: Follower, heartbeat_seconds: float) -> AsyncIterator[bytes]:
    """Server-sent events of the output until the job has ended, and signs of life while nothing happens."""
    yield RETRY
    while True:
        try:
            async with asyncio.timeout(heartbeat_seconds):
                if not await follower.wait():
                    break
        except TimeoutError:
            yield HEARTBEAT
        for text in follower.take():
            yield b"id: %d\ndata: %b\n\n" % (text.sequence, output_message(text))
    while not job.finished.is_set():
        try:
            async with asyncio.timeout(heartbeat_seconds):
                await job.finished.wait()
        except TimeoutError:
            yield HEARTBEAT


def has_ended(job: Job, follower: Follower) -> bool:
    """Whether the reader may be told that the job is finished: it ended by itself, and nothing was cut."""
    if job.outcome is None or follower.is_cut:
        return False
    return not (job.deleted and job.outcome.verdict is Verdict.cancelled)  # cancelled by its deletion
