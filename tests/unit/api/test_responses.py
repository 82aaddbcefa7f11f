"""Answers with a job's bytes: their lease, and that a reader who left does not have all the loop's time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import Response

from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.jobs.events import EventStream
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.model import Job, JobRequest
from sandrun_api.jobs.responses import JobResponse, job_document, job_text
from sandrun_shared.jobs import Limits, UploadKind
from sandrun_shared.memfds import Memfd

pytestmark = pytest.mark.anyio
SCOPE = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.3"}}


def job_that_printed(size: int, budget: MemoryBudget) -> Job:
    request = JobRequest(
        "a", Manifest(entrypoint="main.py"), "python3", Limits(), UploadKind.bundle, "0" * 64, "hash"
    )
    job = Job(request, Memfd.create("test"), Reservation(budget))
    job.logs.append(1, b"x" * size)
    return job


async def left() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def without_end() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 5000


async def drop(_: object) -> None:
    """As a server does for a client that has left: at once."""


@pytest.mark.parametrize("kind", ["events", "pieces"])
async def test_who_has_left_is_sent_no_more(kind: str) -> None:
    job = job_that_printed(1, MemoryBudget(1 << 20))
    answers: dict[str, Response] = {
        "events": EventStream(job, without_end()),
        "pieces": JobResponse(without_end(), job.lease, headers={}, media_type="a/b"),
    }
    async with asyncio.timeout(30):
        await answers[kind](SCOPE, left, drop)
    assert not job.is_read


async def stays() -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


@pytest.mark.parametrize("kind", ["document", "text"])
async def test_a_deleted_job_keeps_its_bytes_and_their_place_until_they_are_sent(kind: str) -> None:
    budget = MemoryBudget(1 << 20)
    job = job_that_printed(200_000, budget)
    answer = job_document(job, {"a": job.logs.bytes_of().text}) if kind == "document" else job_text(job)
    counted = budget.used_bytes
    job.close()
    assert budget.used_bytes == counted > 200_000
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    await answer(SCOPE, stays, send)
    assert b"".join(sent).strip(b'{}"a:') == b"x" * 200_000
    assert max(map(len, sent)) < 64 << 10
    assert budget.used_bytes == 0


async def test_a_small_answer_is_sent_at_once_with_its_length() -> None:
    job = job_that_printed(20_000, MemoryBudget(1 << 20))
    for answer in (job_text(job), job_document(job, {"a": job.logs.bytes_of().text})):
        assert answer.headers["content-length"] == str(len(answer.body))
    assert not job.is_read
