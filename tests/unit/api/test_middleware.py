"""The last resort, and readers that do not read."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.websockets import WebSocket

from sandrun_api.budget import MemoryBudget, Reservation
from sandrun_api.jobs import log_routes
from sandrun_api.jobs.logs import JobLogs
from sandrun_api.middleware import AbortedAnswer, Guard

pytestmark = pytest.mark.anyio


async def nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def test_an_unexpected_exception_quotes_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def app(*_: object) -> None:
        raise RuntimeError("canary")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with caplog.at_level(logging.ERROR):
        await Guard(app)({"type": "http"}, nothing, send)
    assert sent[0]["status"] == 500
    assert b"canary" not in sent[1]["body"]
    assert "canary" not in caplog.text
    assert "RuntimeError" in caplog.text


async def test_an_answer_that_was_begun_is_not_ended() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    async def send(message: Any) -> None:
        pass

    with pytest.raises(AbortedAnswer):
        await Guard(app)({"type": "http"}, nothing, send)


async def test_a_reader_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_routes, "SEND_SECONDS", 0.0)
    closed: list[int] = []

    async def receive() -> dict[str, Any]:
        if not closed:
            closed.append(0)
            return {"type": "websocket.connect"}
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            await asyncio.Event().wait()
        if message["type"] == "websocket.close":
            closed.append(message["code"])

    class App:
        """As much of the application as the route looks at."""

    logs = JobLogs(100, Reservation(MemoryBudget(1000)))
    logs.append(1, b"text")
    app, job = App(), App()
    job.logs = logs  # type: ignore[attr-defined]
    app.state = App()  # type: ignore[attr-defined]
    app.state.service = App()  # type: ignore[attr-defined]
    app.state.service.store = {"id": job}  # type: ignore[attr-defined]
    scope = {"type": "websocket", "app": app, "query_string": b"", "headers": [], "path": "/stream/id"}
    await log_routes.stream_job_logs(WebSocket(scope, receive, send), "id")
    assert closed[-1] == log_routes.TRY_AGAIN_LATER
