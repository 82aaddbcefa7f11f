"""What a client sees when the executor, or the client itself, misbehaves. Needs the fake executor."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from sandrun_api.jobs import service
from sandrun_shared import executor_client
from sandrun_shared.protocol import Refused
from sandrun_shared.settings import Api, JobLimits, Quota, Settings
from sandrun_shared.settings import Executor as ExecutorSettings
from support import programs
from support.fake_executor import CONNECTION_LOST, HOSTILE_INDEX, FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
TEXT = {"content-type": "text/plain"}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Servers with settings of the test's own."""
    async with AsyncExitStack() as entered:
        yield entered


async def submit(live: Live, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return await live.client.post(
        "/submit",
        files=[("files", ("main.py", code.encode()))],
        data={"manifest": '{"entrypoint": "main.py"}'},
        headers=headers,
    )


async def status(live: Live, response: httpx.Response, wait: int = 30) -> dict[str, object]:
    assert response.status_code == 200, response.text
    return (await live.client.get(response.headers["location"], params={"wait": wait})).json()


async def test_executor_dies_while_a_job_runs(live_fake: Live) -> None:
    ended = await status(live_fake, await submit(live_fake, CONNECTION_LOST))
    assert (ended["status"], ended["verdict"]) == ("failed", "executor_lost")
    again = await live_fake.client.post("/run", content=programs.HELLO.code, headers=TEXT)
    assert again.content == b"hello\n"


async def test_executor_is_away_and_comes_back(live_fake: Live, fake: FakeExecutor) -> None:
    await fake.stop()
    health = await live_fake.client.get("/health")
    assert health.status_code == 503
    assert health.json()["retry_after"] == int(health.headers["retry-after"])
    assert (await submit(live_fake, "pass")).status_code == 503
    assert (await live_fake.client.get("/")).status_code == 200
    fake.start()
    assert (await live_fake.client.get("/health")).status_code == 200
    assert (await status(live_fake, await submit(live_fake, "pass")))["verdict"] == "ok"


async def test_jobs_wait_for_an_executor_that_restarts(live_fake: Live, fake: FakeExecutor) -> None:
    assert (await live_fake.client.get("/environments")).status_code == 200  # it is known now
    await fake.stop()
    response = await submit(live_fake, "pass")
    assert (await status(live_fake, response, wait=0))["verdict"] is None
    fake.start()
    assert (await status(live_fake, response))["verdict"] == "ok"


@pytest.mark.parametrize("reason", ["full", "stopping"])
async def test_a_job_the_executor_has_no_room_for_is_tried_again(
    live_fake: Live, fake: FakeExecutor, reason: str
) -> None:
    fake.refuse_next = [Refused(reason), Refused(reason)]
    assert (await status(live_fake, await submit(live_fake, "pass")))["verdict"] == "ok"


async def test_a_job_the_executor_refuses_says_why(live_fake: Live, fake: FakeExecutor) -> None:
    fake.refuse_next = [Refused("unsupported", "no such thing")]
    ended = await status(live_fake, await submit(live_fake, "pass"))
    assert (ended["verdict"], ended["detail"]) == ("setup_error", "no such thing")


PROBLEM = "no sandbox can be made on this server now: the kernel has no room for one more system call filter"


async def test_a_server_that_can_make_no_sandbox_is_not_ready(live_fake: Live, fake: FakeExecutor) -> None:
    fake.problem = PROBLEM
    for path in ("/health", "/health?nonce=abc"):
        health = await live_fake.client.get(path)
        assert health.status_code == 503
        assert health.json()["reason"] == PROBLEM[0].upper() + PROBLEM[1:] + "."
        assert health.json()["retry_after"] == int(health.headers["retry-after"])
    assert fake.tried == [True, True]
    assert (await live_fake.client.get("/")).status_code == 200  # it is alive
    fake.problem = ""
    body = (await live_fake.client.get("/health", params={"nonce": "abc"})).json()
    assert (body["status"], set(body)) == ("healthy", {"status", "worker_id", "signature"})


async def test_no_job_is_taken_while_no_sandbox_can_be_made(live_fake: Live, fake: FakeExecutor) -> None:
    fake.problem = PROBLEM
    for answer in (
        await submit(live_fake, "pass"),
        await live_fake.client.post("/run", content="pass", headers=TEXT),
    ):
        assert (answer.status_code, answer.json()["retry_after"]) == (503, int(answer.headers["retry-after"]))
        assert "system call filter" in answer.json()["reason"]
    fake.problem = ""  # nobody has to say so
    assert (await status(live_fake, await submit(live_fake, "pass")))["verdict"] == "ok"


async def test_jobs_that_wait_are_told_within_seconds_that_none_can_run(
    live_fake: Live, fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that wait, not one after the other: there are more than places."""
    monkeypatch.setattr(service, "UNAVAILABLE_SECONDS", 0.2)
    fake.slots = 1
    assert (await live_fake.client.get("/health")).status_code == 200
    first = await submit(live_fake, programs.WAITS.code)
    await fake.until(lambda: fake.running == 1)
    waiting = [await submit(live_fake, "pass") for _ in range(20)]
    fake.problem = PROBLEM
    await live_fake.client.delete(f"/jobs/{first.json()['job_id']}")
    ended = await asyncio.gather(*(status(live_fake, response) for response in waiting))
    assert {(one["verdict"], one["detail"]) for one in ended} == {("setup_error", PROBLEM)}


async def test_jobs_outlive_a_moment_without_sandboxes(live_fake: Live, fake: FakeExecutor) -> None:
    fake.refuse_next = [Refused("unavailable", PROBLEM), Refused("unavailable", PROBLEM)]
    assert (await status(live_fake, await submit(live_fake, "pass")))["verdict"] == "ok"


async def test_an_executor_that_takes_a_job_and_says_nothing(
    live_fake: Live, fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SILENCE_SECONDS", 0.01)
    monkeypatch.setattr(executor_client, "DESCRIBE_SECONDS", 0.05)
    assert (await live_fake.client.get("/health")).status_code == 200
    fake.silent = True
    ended = await status(live_fake, await submit(live_fake, "pass"))
    assert (ended["verdict"], ended["detail"]) == ("executor_lost", "the executor does not answer")
    fake.silent = False
    assert (await status(live_fake, await submit(live_fake, "pass")))["verdict"] == "ok"


async def test_a_job_without_a_word_is_waited_for_while_the_executor_answers_others(
    live_fake: Live, fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sandbox may take its time, and the executor says when that is too long."""
    monkeypatch.setattr(service, "SILENCE_SECONDS", 0.01)
    fake.silent_on_jobs = True
    response = await submit(live_fake, "pass")
    asked = len(fake.tried)
    await fake.until(lambda: len(fake.tried) > asked + service.SILENCES)
    assert (await status(live_fake, response, wait=0))["verdict"] is None
    await live_fake.client.delete(f"/jobs/{response.json()['job_id']}")


async def test_hostile_index_of_outputs(live_fake: Live) -> None:
    ended = await status(live_fake, await submit(live_fake, HOSTILE_INDEX))
    assert ended["verdict"] == "internal_error"
    assert ended["output_files"] == {}


async def test_hanging_up_on_run_cancels(live_fake: Live, fake: FakeExecutor) -> None:
    running = asyncio.create_task(live_fake.client.post("/run", content=programs.WAITS.code, headers=TEXT))
    await fake.until(lambda: fake.running == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await fake.until(lambda: fake.hung_up == 1)
    await fake.until(lambda: fake.running == 0)


async def test_one_client_cannot_take_every_place(fake: FakeExecutor, stack: AsyncExitStack) -> None:
    settings = Settings(
        executor=ExecutorSettings(socket=str(fake.path)), quota=Quota(concurrent_jobs=1, queued_jobs=1)
    )
    live = await stack.enter_async_context(serving(settings))
    first = await submit(live, programs.WAITS.code)
    await fake.until(lambda: fake.running == 1)
    second = await submit(live, "pass")
    assert second.json()["queue_position"] == 1
    third = await submit(live, "pass")
    assert third.status_code == 429
    assert third.json()["retry_after"] == int(third.headers["retry-after"])
    stats = (await live.client.get("/stats")).json()
    assert stats["your_quota"]["can_submit"] is False
    assert stats["system"]["active_jobs"] == 1
    assert (await live.client.delete(f"/jobs/{first.json()['job_id']}")).status_code == 204
    assert (await status(live, second))["verdict"] == "ok"


async def test_idempotency_key(live_fake: Live, fake: FakeExecutor) -> None:
    key = {"Idempotency-Key": "one"}
    first = await submit(live_fake, "pass", key)
    second = await submit(live_fake, "pass", key)
    assert first.json()["job_id"] == second.json()["job_id"]
    assert (await submit(live_fake, "other", key)).status_code == 409
    await status(live_fake, first)
    assert len(fake.executed) == 1


async def test_no_room_in_memory(fake: FakeExecutor, stack: AsyncExitStack) -> None:
    settings = Settings(
        executor=ExecutorSettings(socket=str(fake.path)), limits=JobLimits(memory_budget_mb=16)
    )
    live = await stack.enter_async_context(serving(settings))
    assert (await submit(live, "#" * (17 << 20))).status_code == 503
    assert (await status(live, await submit(live, "pass")))["verdict"] == "ok"


async def test_upload_above_the_limit(fake: FakeExecutor, stack: AsyncExitStack) -> None:
    settings = Settings(executor=ExecutorSettings(socket=str(fake.path)), api=Api(upload_bytes=1024))
    live = await stack.enter_async_context(serving(settings))
    assert (await submit(live, "#" * 1025)).status_code == 413
    assert (await submit(live, "#" * 1024)).status_code == 200


BAD = [
    ({"manifest": "{}"}, 400, "entrypoint"),
    ({"manifest": '{"entrypoint": "main.py", "colour": 1}'}, 400, "colour"),
    ({"manifest": "not json"}, 400, "manifest"),
    ({"manifest": '{"entrypoint": "other.py"}'}, 400, "other.py"),
    ({"manifest": '{"entrypoint": "../main.py"}'}, 400, "entrypoint"),
    ({"manifest": '{"entrypoint": "main.py", "env": {"LD_PRELOAD": "x"}}'}, 400, "LD_PRELOAD"),
    ({"manifest": '{"entrypoint": "main.py", "requirements": "requirements.txt"}'}, 400, "requirements"),
    ({"manifest": '{"entrypoint": "main.py", "gpu": {"required": true}}'}, 400, "gpu"),
    ({"manifest": '{"entrypoint": "main.py", "environment": "mars"}'}, 400, "mars"),
    ({"manifest": '{"entrypoint": "main.py", "timeout": 1e9}'}, 400, "timeout"),
    ({"manifest": '{"entrypoint": "main.py", "args": ["a\\u0000b"]}'}, 400, "NUL"),
    ({"manifest": '{"entrypoint": "main.py", "args": ["\\ud800"]}'}, 400, ""),
    ({}, 400, "manifest"),
    ({"manifest": "{}", "colour": "x"}, 400, "named neither"),
]


@pytest.mark.parametrize(("data", "code", "word"), BAD)
async def test_bad_submissions(live_fake: Live, data: dict[str, str], code: int, word: str) -> None:
    answer = await live_fake.client.post("/submit", files={"files": ("main.py", b"pass")}, data=data)
    body = answer.json()
    assert answer.status_code == code == body["status"]
    assert word in body["reason"]
    assert body["reason"] == body["detail"]
    assert {"error", "type", "title"} <= body.keys()
    assert (await live_fake.client.get("/stats")).json()["system"]["active_jobs"] == 0


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404),
        ("PUT", "/submit", 405),
        ("POST", "/submit", 415),
        ("POST", "/run", 415),
        ("GET", "/status/unknown", 404),
        ("GET", "/status/unknown?wait=never", 400),
    ],
)
async def test_every_error_has_one_shape(live_fake: Live, method: str, path: str, code: int) -> None:
    answer = await live_fake.client.request(method, path, headers={"origin": "http://localhost:3000"})
    assert answer.status_code == code
    assert {"error", "reason", "type", "title", "status", "detail"} <= answer.json().keys()
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "server" not in answer.headers


async def test_nothing_a_client_sent_is_logged(
    live_fake: Live, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "canary-4f2d"
    await submit(live_fake, f"# {canary}", {"Idempotency-Key": canary})
    await live_fake.client.get(f"/status/{canary}")
    await live_fake.client.post("/run", content=canary, headers=TEXT)
    await live_fake.client.post(
        "/submit", content=canary, headers={"content-type": f"multipart/form-data; boundary={canary}"}
    )
    assert canary not in caplog.text + "".join(capfd.readouterr())


async def test_the_document_names_every_operation(live_fake: Live) -> None:
    document = (await live_fake.client.get("/openapi.json")).json()
    operations = [
        operation for path in document["paths"].values() for operation in path.values() if operation
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"getServer", "submitJob", "runCode", "getJobStatus", "deleteJob", "getJobLogs"} <= set(names)
    assert {"listOutputs", "downloadOutputs", "downloadFile", "getHealth", "getStats"} <= set(names)
    assert all(operation["summary"] for operation in operations)
    json.dumps(document)


async def test_the_socket_is_not_there_at_all(tmp_path: Path, stack: AsyncExitStack) -> None:
    settings = Settings(executor=ExecutorSettings(socket=str(tmp_path / "nothing")))
    live = await stack.enter_async_context(serving(settings))
    assert (await live.client.get("/health")).status_code == 503
