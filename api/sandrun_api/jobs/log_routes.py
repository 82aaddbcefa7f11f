"""What a job printed: all of it at once, or live."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from sandrun_api.admission.budget import Reservation
from sandrun_api.edge.clients import client_of
from sandrun_api.errors import ApiError, bad_request
from sandrun_api.jobs import truncation
from sandrun_api.jobs.events import (
    DESCRIPTION,
    EVENT_SCHEMA,
    EXAMPLE,
    EventStream,
    finished_event,
    finished_message,
    has_ended,
    output_events,
    output_message,
)
from sandrun_api.jobs.following import FINISHED, Follower
from sandrun_api.jobs.model import Job
from sandrun_api.jobs.responses import job_document, job_text
from sandrun_api.jobs.schemas import JobId, Logs, answers
from sandrun_api.jobs.views import job_of, logs_of, service_of, status_of
from sandrun_shared.settings import Settings

TRY_AGAIN_LATER = 1013  # IANA's registry of close codes
UNKNOWN_JOB = 4404
BAD_OFFSET = 4400
YIELD_CHARACTERS = 4096

router = APIRouter(tags=["logs"])


@router.get(
    "/logs/{job_id}",
    operation_id="getJobLogs",
    summary="What a job printed",
    responses={
        **answers(Logs, 400, 404),
        200: {
            "model": Logs,
            "description": "Done",
            "headers": truncation.HEADERS,
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
    },
)
async def get_job_logs(
    request: Request,
    job_id: JobId,
    offset: Annotated[int, Query(ge=0, description="Bytes of both streams to skip (`next_offset`).")] = 0,
) -> Response:
    """Both streams; as text/plain they come interleaved, byte for byte."""
    job = job_of(request, job_id)
    if job.logs.closed and offset <= job.logs.size + FINISHED:
        offset = min(offset, job.logs.size)  # the sequence of a last event
    if offset > job.logs.size:
        raise bad_request(f"The job has printed {job.logs.size} bytes, less than 'offset'.", "/query/offset")
    if "text/plain" in request.headers.get("accept", ""):
        return job_text(job, offset)
    return job_document(job, logs_of(job, offset))


@router.get(
    "/logs/{job_id}/events",
    operation_id="streamJobLogs",
    summary="What a job prints, as it prints it",
    response_class=StreamingResponse,  # of the document
    responses={
        **answers(None, 400, 404),
        200: {
            "description": DESCRIPTION,
            "content": {
                "text/event-stream": {
                    "schema": EVENT_SCHEMA,
                    "example": EXAMPLE,
                }
            },
        },
        204: {"description": "`Last-Event-ID` is that of the last event: a browser stops connecting again"},
    },
)
async def stream_job_logs(
    request: Request,
    job_id: JobId,
    offset: Annotated[int, Query(ge=0, description="A sequence to go on after.")] = 0,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="As `offset`; it wins.")
    ] = None,
) -> Response:
    """Server-sent events; a reader that comes back with the id of its last event misses nothing."""
    job = job_of(request, job_id)
    settings: Settings = request.app.state.settings
    follower = _follower(job, last_event_id or str(offset))
    if follower is None:
        raise bad_request("The job has no such sequence yet.", "/header/Last-Event-ID")
    if follower.has_all:
        return Response(status_code=204)

    async def events() -> AsyncIterator[bytes]:
        async for event in output_events(job, follower, settings.api.heartbeat_seconds):
            yield event
        if has_ended(job, follower):
            for piece in finished_event(follower.last_sequence, status_of(job, service_of(request))):
                yield piece

    return EventStream(job, events())


@router.websocket("/logs/{job_id}/stream")
@router.websocket("/stream/{job_id}")
async def follow_job_logs(websocket: WebSocket, job_id: str) -> None:
    """Live output from the start or after `?offset=`; `?format=json` for messages that say which stream."""
    await websocket.accept()
    job = service_of(websocket).store.get(job_id)
    if job is None:
        await websocket.close(UNKNOWN_JOB, "unknown job")
        return
    follower = _follower(job, websocket.query_params.get("offset", "0"))
    if follower is None:
        await websocket.close(BAD_OFFSET, "offset is not a sequence of this job")
        return
    as_json = websocket.query_params.get("format") == "json"
    end = job.lease()
    try:
        async with _until_disconnect(websocket):
            await _follow(websocket, job, follower, as_json=as_json)
    finally:
        end()


def _follower(job: Job, after: str) -> Follower | None:
    try:
        return Follower(job.logs, int(after) if after.isascii() and after.isdigit() else -1)
    except ValueError:
        return None


async def _follow(websocket: WebSocket, job: Job, follower: Follower, *, as_json: bool) -> None:
    while await follower.wait():
        for text in follower.take():
            await websocket.send_text(output_message(text).decode() if as_json else text.text)
            if len(text.text) > YIELD_CHARACTERS:
                await asyncio.sleep(0)  # a long past is not sent in one go: others want to be served too
    await job.finished.wait()
    if not has_ended(job, follower):
        await websocket.close(UNKNOWN_JOB, "the job was deleted")
        return
    service = service_of(websocket)
    # One message cannot be sent in pieces; it is held until the client has taken nearly all of it.
    held = Reservation(service.budget, client_of(websocket))
    try:
        if as_json:
            message = bytearray()
            for piece in finished_message(status_of(job, service)):
                held.reserve(len(piece))
                message += piece
            await websocket.send_text(message.decode())
        # A reader of bare text has nothing else to learn it from.
        cut = truncation.described(job)
        await websocket.close(1000, f"truncated: {cut}" if cut else None)
    except ApiError as error:
        await websocket.close(TRY_AGAIN_LATER, error.error)
    finally:
        held.close()


@asynccontextmanager
async def _until_disconnect(websocket: WebSocket) -> AsyncIterator[None]:
    """Leave the body as soon as the client is gone."""
    body = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass  # what a reader says is not read
        gone = True
        if body is not None:
            body.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or body is None or body.uncancel() > 0:
            raise
    except (WebSocketDisconnect, RuntimeError):
        pass  # sent to a client that had just left
    finally:
        watcher.cancel()
