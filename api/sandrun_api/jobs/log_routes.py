"""What a job printed: all of it at once, or live."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from sandrun_api.errors import bad_request
from sandrun_api.jobs.logs import TextFollower
from sandrun_api.jobs.model import Job
from sandrun_api.jobs.schemas import Logs, answers
from sandrun_api.jobs.views import job_of, json_response, logs_of, service_of, status_of

SEND_SECONDS = 20.0  # a reader that takes nothing for so long is dropped
UNKNOWN_JOB = 4404
TRY_AGAIN_LATER = 1013

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
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
    },
)
async def get_job_logs(
    request: Request,
    job_id: str,
    offset: Annotated[int, Query(ge=0, description="Bytes of both streams to skip (`next_offset`).")] = 0,
) -> Response:
    """Both streams; as text/plain they come interleaved, byte for byte."""
    job = job_of(request, job_id)
    if offset > job.logs.size:
        raise bad_request(f"The job has printed {job.logs.size} bytes, less than 'offset'.", "/query/offset")
    if "text/plain" in request.headers.get("accept", ""):
        return Response(job.logs.combined(offset), media_type="text/plain")
    return json_response(logs_of(job, offset))


@router.websocket("/logs/{job_id}/stream")
@router.websocket("/stream/{job_id}")
async def stream_job_logs(websocket: WebSocket, job_id: str) -> None:
    """Live output from the start; `?format=json` for messages that say which stream."""
    await websocket.accept()
    job = service_of(websocket).store.get(job_id)
    if job is None:
        await websocket.close(UNKNOWN_JOB, "unknown job")
        return
    as_json = websocket.query_params.get("format") == "json"
    try:
        async with _until_disconnect(websocket):
            await _follow(websocket, job, as_json=as_json)
    except TimeoutError:
        await _close_slow(websocket)


async def _follow(websocket: WebSocket, job: Job, *, as_json: bool) -> None:
    follower = TextFollower()
    position = 0

    async def send(stream: int, sequence: int, text: str) -> None:
        if text:
            await _send(websocket, _message(stream, sequence, text) if as_json else text)

    while await job.logs.more(position):
        for start, stream, data in job.logs.pieces(position):
            await send(stream, start, follower.decode(stream, data))
            position = start + len(data)
    for stream, text in follower.finish():
        await send(stream, position, text)
    await job.finished.wait()
    if job.deleted and not job.is_finished:
        await websocket.close(UNKNOWN_JOB, "the job was deleted")
        return
    if as_json:
        body: dict[str, Any] = {"type": "finished", **status_of(job, service_of(websocket))}
        await _send(websocket, msgspec.json.encode(body).decode())
    await websocket.close(1000)


def _message(stream: int, sequence: int, text: str) -> str:
    # The sequence is the position of the text's first byte, so that it grows and a reader can resume there.
    name = "stdout" if stream == 1 else "stderr"
    body = {"type": "output", "stream": name, "sequence": sequence, "data": text}
    return msgspec.json.encode(body).decode()


async def _send(websocket: WebSocket, text: str) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await websocket.send_text(text)


async def _close_slow(websocket: WebSocket) -> None:
    try:
        async with asyncio.timeout(1):
            await websocket.close(TRY_AGAIN_LATER, "too slow")
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        return  # it does not read this either; the server drops the connection


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
