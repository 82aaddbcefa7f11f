"""The last resort."""

import logging
from typing import Any

import pytest

from sandrun_api.edge.middleware import AbortedAnswer, Guard

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
