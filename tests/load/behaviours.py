"""What the clients do with their jobs, and what must come of each."""

import asyncio
import contextlib
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from websockets.asyncio.client import connect

from load.client import Accepted, Client, Lost
from load.plan import BLOB_BYTES, LINES, Behaviour, Task
from support.sse import events

LOST = "lost with the executor"
Took = Callable[[Accepted], None]  # is told of every job that is accepted, at once


async def wait(client: Client, task: Task, took: Took) -> str:
    """Submit, wait, read, take the file."""
    accepted = await client.submit(task)
    took(accepted)
    return await _to_the_end(client, accepted)


async def retry(client: Client, task: Task, took: Took) -> str:
    """Two submissions at once under one key are one job."""
    first, second = await asyncio.gather(client.submit(task), client.submit(task))
    took(first)
    took(second)
    if first.job_id != second.job_id:
        assert client.faults.life > 0, f"{first} and {second} are one job"
        first = max(first, second, key=lambda accepted: accepted.life)
    return await _to_the_end(client, first)


async def cancel(client: Client, task: Task, took: Took) -> str:
    """Delete a job that waits, or one that has printed."""
    accepted = await client.submit(task)
    took(accepted)
    if task.fraction < 0.5:
        await client.ask(accepted, "DELETE", "/jobs/{}")
        await client.gone(accepted)
        return "deleted"
    async with client.connected(accepted):
        seen = await _events(client, accepted, 1)
    await client.ask(accepted, "DELETE", "/jobs/{}")
    await client.gone(accepted)
    return LOST if seen.finished else "deleted"


async def cut_upload(client: Client, task: Task, took: Took) -> str:
    """Leave in the middle of an upload, which submits nothing; then submit."""
    await _send_part(client, client.upload(task, padded=True), task.fraction)
    accepted = await client.submit(task, padded=True)
    took(accepted)
    return await _to_the_end(client, accepted)


async def cut_answer(client: Client, task: Task, took: Took) -> str:
    """Leave without the answer; the same submission again is the same job."""
    since = client.faults.epoch()
    await _send_part(client, client.upload(task), 1.0)
    accepted = await client.submit(task, since=since)
    took(accepted)
    return await _to_the_end(client, accepted)


async def run(client: Client, task: Task, took: Took) -> str:
    """POST /run; an executor that dies makes it a 503 that says so."""
    while True:
        epoch = client.faults.epoch()
        try:
            answer = await client.http.post(
                "/run", content=task.code.encode(), headers={"content-type": "text/plain"}
            )
        except httpx.TransportError as error:
            await client.excuse_api(epoch, error)
            continue
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and "job was lost" in answer.text:
            client.check_verdict(epoch, {"verdict": "executor_lost"})
            took(Accepted(f"run {task.number}", task, epoch, client.faults.life))
            return LOST
        if answer.status_code != httpx.codes.OK:
            await client.excuse_refusal(epoch, answer)
            continue
        took(Accepted(answer.headers["sandrun-job-id"], task, epoch, client.faults.life))
        assert answer.headers["sandrun-verdict"] == "ok", f"{task}: {answer.headers}"
        _check_said(task, answer.text)
        return "ok"


async def cut_run(client: Client, task: Task, took: Took) -> str:
    """Leave a run that has begun: it is cancelled and forgotten."""
    headers = {"content-type": "text/plain", "accept": "text/event-stream"}
    while True:
        epoch, accepted = client.faults.epoch(), None
        try:
            async with client.http.stream("POST", "/run", content=task.code, headers=headers) as answer:
                if answer.status_code != httpx.codes.OK:
                    await answer.aread()
                    await client.excuse_refusal(epoch, answer)
                    continue
                accepted = Accepted(answer.headers["sandrun-job-id"], task, epoch, client.faults.life)
                took(accepted)
                seen = await _read(answer, 1)
        except httpx.TransportError as error:
            await client.excuse_api(epoch, error)
            if accepted is None:
                continue
            await client.gone(accepted)
            raise Lost from None
        await client.gone(accepted)
        if seen.finished is None:
            return "deleted"
        client.check_verdict(epoch, seen.finished)
        assert seen.finished["verdict"] == "executor_lost", f"{task} ended by itself: {seen.finished}"
        return LOST


async def cut_events(client: Client, task: Task, took: Took) -> str:
    """Leave the events and come back: together they are what was printed."""
    accepted = await client.submit(task)
    took(accepted)
    async with client.connected(accepted):
        seen = await _events(client, accepted, 1 + int(task.fraction * LINES / 2))
        while seen.finished is None:
            more = await _events(client, accepted, 10 * LINES, seen.last)
            seen = Seen(seen.text + more.text, more.last or seen.last, more.finished)
    return await _to_the_end(client, accepted, seen.text)


async def cut_socket(client: Client, task: Task, took: Took) -> str:
    """The same with the WebSocket."""
    accepted = await client.submit(task)
    took(accepted)
    base = str(client.http.base_url).replace("http", "ws", 1).rstrip("/")
    text, sequence, leave_after = "", 0, 1 + int(task.fraction * LINES / 2)
    finished: dict[str, Any] | None = None
    async with client.connected(accepted):
        while finished is None:
            url = f"{base}/logs/{accepted.job_id}/stream?format=json&offset={sequence}"
            async with connect(url, compression=None, proxy=None) as stream:
                async for message in stream:
                    event = json.loads(message)
                    if event["type"] == "finished":
                        finished = event
                        continue
                    text, sequence = text + event["data"], event["sequence"]
                    leave_after -= 1
                    if leave_after == 0:
                        stream.transport.abort()
                        break
                else:
                    # The close of a job that is unknown: another api answers.
                    if finished is None and stream.close_code != 1000:
                        await client.ask(accepted, "GET", "/status/{}")
    return await _to_the_end(client, accepted, text)


async def cut_download(client: Client, task: Task, took: Took) -> str:
    """Leave the archive after its first bytes, which keeps the job; taken whole, it deletes it."""
    accepted = await client.submit(task)
    took(accepted)
    status = await client.finished(accepted)
    if status["verdict"] != "ok":
        return await _to_the_end(client, accepted)
    async with (
        client.connected(accepted),
        client.http.stream("GET", f"/download/{accepted.job_id}") as answer,
    ):
        if answer.status_code == httpx.codes.OK:
            async with contextlib.aclosing(answer.aiter_raw(4096)) as pieces:
                await anext(pieces)
    archive = await client.ask(accepted, "GET", "/download/{}")
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as tar:
        contents = {name: tar.extractfile(name).read() for name in tar.getnames()}
    assert contents["number"] == str(task.number).encode()
    assert len(contents["blob"]) == BLOB_BYTES
    for path, content in contents.items():
        assert status["output_files"][path]["sha256_hash"] == hashlib.sha256(content).hexdigest()
    await client.gone(accepted)
    return "ok"


BEHAVIOURS: dict[Behaviour, Callable[[Client, Task, Took], Awaitable[str]]] = {
    Behaviour.wait: wait,
    Behaviour.run: run,
    Behaviour.retry: retry,
    Behaviour.cancel: cancel,
    Behaviour.cut_upload: cut_upload,
    Behaviour.cut_answer: cut_answer,
    Behaviour.cut_events: cut_events,
    Behaviour.cut_socket: cut_socket,
    Behaviour.cut_run: cut_run,
    Behaviour.cut_download: cut_download,
}


class Seen:
    """What a reader of events has: the text, the last id, the status if it came."""

    def __init__(
        self, text: str = "", last: int | None = None, finished: dict[str, Any] | None = None
    ) -> None:
        self.text = text
        self.last = last
        self.finished = finished


async def _events(client: Client, accepted: Accepted, most: int, last: int | None = None) -> Seen:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    async with client.http.stream("GET", f"/logs/{accepted.job_id}/events", headers=headers) as answer:
        if answer.status_code != httpx.codes.OK:
            await client.ask(accepted, "GET", "/status/{}")  # raises Lost if that is why
        assert answer.status_code == httpx.codes.OK, f"{accepted}: {answer.status_code}"
        return await _read(answer, most)


async def _read(answer: httpx.Response, most: int) -> Seen:
    """Read a number of output events, fewer if the job finishes before."""
    seen = Seen()
    async with contextlib.aclosing(events(answer)) as stream:
        async for event in stream:
            if event.name == "finished":
                seen.finished = event.data
                break
            if event.name == "message" and event.data is not None:
                seen.text, seen.last = seen.text + event.data["data"], event.id
                most -= 1
                if most == 0:
                    break
    return seen


async def _send_part(client: Client, request: httpx.Request, fraction: float) -> None:
    """A part of the request, then leave; the end of a whole one is orderly, so that it is read."""
    lines = [f"POST {request.url.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    body = b"".join([piece async for piece in request.stream])  # type: ignore[union-attr]
    try:
        _, writer = await asyncio.open_connection(request.url.host, request.url.port)
    except OSError:
        return  # a service that is away gets nothing
    writer.write("\r\n".join([*lines, "", ""]).encode() + body[: int(fraction * len(body))])
    with contextlib.suppress(OSError):
        await writer.drain()
        if fraction < 1:
            writer.transport.abort()
        writer.close()
        await writer.wait_closed()


async def _to_the_end(client: Client, accepted: Accepted, followed: str | None = None) -> str:
    """Wait for the end, compare what it printed and left with what it was to, and forget it."""
    status = await client.finished(accepted)
    said = (await client.ask(accepted, "GET", "/logs/{}", headers={"accept": "text/plain"})).text
    assert followed in (None, said), f"{accepted}: {followed!r} was followed, {said!r} was printed"
    is_ok = status["verdict"] == "ok"
    if is_ok or said:
        _check_said(accepted.task, said, whole=is_ok)
    if is_ok and status["output_files"]:
        left = await client.ask(accepted, "GET", "/download/{}/number")
        assert left.text == str(accepted.task.number)
    await client.ask(accepted, "DELETE", "/jobs/{}")
    await client.gone(accepted)
    return "ok" if is_ok else LOST


def _check_said(task: Task, said: str, *, whole: bool = True) -> None:
    """Its number with one word, and every line once. Raises AssertionError."""
    first, *rest = said.splitlines()
    assert re.fullmatch(rf"{task.number} [0-9a-f]{{16}}", first), f"{task} printed {said!r}"
    talks = task.behaviour in (Behaviour.cut_events, Behaviour.cut_socket)
    lines = [f"{task.number} {line}" for line in range(LINES if talks else 0)]
    assert rest == (lines if whole else lines[: len(rest)]), f"{task} printed {said!r}"
