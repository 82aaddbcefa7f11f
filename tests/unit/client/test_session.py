"""Giving a run up at awkward moments: no job may be left behind."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from sandrun_client import AsyncSandrunClient, ConnectionFailed
from sandrun_client.cli.programs import Program
from sandrun_client.cli.session import Run
from support import http_answers as answer

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]
RUN = Run(Program(None, {}, code=b"print(1)"), None, json=False, keep=False)


def client_of(handler: Handler) -> AsyncSandrunClient:
    return AsyncSandrunClient(
        "http://server.test", transport=httpx.MockTransport(handler), retries=0, max_retry_wait=0
    )


def test_given_up_when_the_upload_is_sent_but_not_answered() -> None:
    """Only the answer tells which job it was, so it is waited for."""

    async def main() -> list[str]:
        seen: list[str] = []
        sent, answered = asyncio.Event(), asyncio.Event()

        async def handler(request: httpx.Request) -> httpx.Response:
            seen.append(f"{request.method} {request.url.path}")
            if request.method == "DELETE":
                return httpx.Response(204)
            sent.set()
            await answered.wait()
            return httpx.Response(200, json={"job_id": "j", "queue_position": None})

        async with client_of(handler) as client:
            running = asyncio.ensure_future(RUN.once(client))
            await sent.wait()
            running.cancel()
            answered.set()
            with pytest.raises(asyncio.CancelledError):
                await running
        return seen

    assert asyncio.run(main()) == ["POST /submit", "DELETE /jobs/j"]


def test_given_up_while_it_runs() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        following = asyncio.Event()

        async def handler(request: httpx.Request) -> httpx.Response:
            seen.append(f"{request.method} {request.url.path}")
            if request.method == "POST":
                return httpx.Response(200, json={"job_id": "j", "queue_position": None})
            if request.method == "GET":
                following.set()
                await asyncio.Event().wait()
            return httpx.Response(204)

        async with client_of(handler) as client:
            running = asyncio.ensure_future(RUN.once(client))
            await following.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        return seen

    assert asyncio.run(main()) == ["POST /submit", "GET /logs/j/events", "DELETE /jobs/j"]


def test_a_server_that_is_gone_may_still_run_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, json={"job_id": "j", "queue_position": 3})
        raise httpx.ReadError("gone")

    async def main() -> None:
        async with client_of(handler) as client:
            await RUN.once(client)

    with pytest.raises(ConnectionFailed):
        asyncio.run(main())
    said = capsys.readouterr().err
    assert "waiting, at position 3" in said
    assert "sandrun logs -f j" in said


def test_a_job_that_left_nothing_is_deleted(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    seen: list[str] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}")
        if request.method == "POST":
            return httpx.Response(200, json={"job_id": "j", "queue_position": None})
        if request.method == "DELETE":
            return httpx.Response(204)
        ended = answer.status("j", "failed", verdict="nonzero_exit", exit_code=7)
        return httpx.Response(200, content=answer.finished_event(3, ended))

    async def main() -> int:
        async with client_of(handler) as client:
            return await RUN.once(client)

    assert asyncio.run(main()) == 7
    assert seen[-1] == "DELETE /jobs/j"
