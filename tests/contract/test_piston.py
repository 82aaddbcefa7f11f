"""Piston's interface, whichever executor is behind the api."""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandrun_shared.settings import Api, Executor, JobLimits, Quota, Settings
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
ADAPTERS = Api(adapters=("piston",))
UNLIMITED = Quota(cpu_seconds_per_minute=0, concurrent_jobs=0, jobs_per_hour=0, queued_jobs=0)


def settings_for(path: Path, api: Api = ADAPTERS, quota: Quota = UNLIMITED, **tables: Any) -> Settings:
    return Settings(executor=Executor(socket=str(path)), api=api, quota=quota, **tables)


WRONG: list[tuple[dict[str, object], str]] = [
    ({"language": None}, "language is required as a string"),
    ({"language": ["python"]}, "language is required as a string"),
    ({"version": ""}, "version is required as a string"),
    ({"files": None}, "files is required as an array"),
    ({"files": {}}, "files is required as an array"),
    ({"files": [{"name": "a"}]}, "files[0].content is required as a string"),
    ({"files": ["x"]}, "files[0].content is required as a string"),
    ({"files": [{"content": "x", "name": 1}]}, "files[0].name must be a string"),
    ({"files": [{"content": "?", "encoding": "base64"}]}, "files[0].content is not valid base64"),
    ({"files": [{"content": "?", "encoding": "hex"}]}, "files[0].content is not valid hex"),
    ({"files": []}, "files must include at least one utf8 encoded file"),
    ({"files": [{"content": "61", "encoding": "hex"}]}, "files must include at least one utf8 encoded file"),
    ({"files": [{"content": "", "name": "../a"}]}, "Member '../a' leaves the work directory."),
    ({"files": [{"name": "a", "content": ""}, {"name": "./a", "content": ""}]}, "files has two entries named a"),
    ({"language": "cobol"}, "cobol-* runtime is unknown"),
    ({"version": "0.0.1"}, "python-0.0.1 runtime is unknown"),
    ({"version": "latest"}, "python-latest runtime is unknown"),
    ({"args": "a"}, "args must be an array of strings"),
    ({"args": [1]}, "args must be an array of strings"),
    ({"args": ["\0"]}, "A NUL cannot be passed to a program."),
    ({"stdin": 1}, "stdin must be a string"),
    ({"run_timeout": "1"}, "If specified, run_timeout must be a number"),
    ({"run_timeout": True}, "If specified, run_timeout must be a number"),
    ({"run_timeout": -1}, "run_timeout must be non-negative"),
    ({"run_timeout": 4e6}, "run_timeout cannot exceed the configured limit of 3600000"),
    ({"compile_timeout": []}, "If specified, compile_timeout must be a number"),
    ({"run_memory_limit": 1 << 40}, "run_memory_limit cannot exceed the configured limit of 2147483648"),
    ({"run_memory_limit": 1000}, "run_memory_limit must be at least 16777216, or -1"),
]  # fmt: skip


@pytest.fixture
def settings_of() -> Callable[[Path], Settings]:
    return settings_for


async def execute(live: Live, code: str, **more: object) -> httpx.Response:
    body = {"language": "python", "version": "*", "files": [{"content": code}], **more}
    return await live.client.post("/api/v2/execute", json=body)


@pytest.mark.parametrize("prefix", ["/api/v2", "/api/v2/piston"])
async def test_runtimes_and_packages(live: Live, prefix: str) -> None:
    runtimes = (await live.client.get(f"{prefix}/runtimes")).json()
    python = next(item for item in runtimes if item["language"] == "python")
    assert set(python) == {"language", "version", "aliases"}
    assert "py" in python["aliases"]
    assert (await live.client.get(f"{prefix}/runtimes/")).json() == runtimes
    assert python["version"].count(".") == 2
    packages = (await live.client.get(f"{prefix}/packages")).json()
    assert {"language": "python", "language_version": python["version"], "installed": True} in packages


@pytest.mark.parametrize("language", ["python", "py", "python3", "Python", "PY"])
async def test_execute(live: Live, language: str) -> None:
    answer = await execute(live, programs.HELLO.code, language=language, stdin="in", args=["a"])
    assert answer.status_code == 200, answer.text
    body = answer.json()
    run = body.pop("run")
    assert body == {"language": "python", "version": body["version"]}
    times = {name: run.pop(name) for name in ("cpu_time", "wall_time", "memory")}
    assert all(isinstance(value, int) for value in times.values())
    quiet = {"message": None, "status": None, "signal": None}
    assert run == {"stdout": "hello\n", "stderr": "", "output": "hello\n", "code": 0, **quiet}
    assert (await live.client.get(f"/status/{answer.headers['sandrun-job-id']}")).status_code == 404


async def test_null_and_a_byte_order_mark(live_fake: Live) -> None:
    names = ("args", "stdin", "compile_timeout", "run_timeout", "run_cpu_time", "run_memory_limit")
    body = {
        **{"language": "python", "version": "*", **dict.fromkeys(names)},
        "files": [{"name": None, "content": programs.HELLO.code, "encoding": None}],
    }
    content = "\ufeff" + json.dumps(body)
    headers = {"content-type": "application/json"}
    answer = await live_fake.client.post("/api/v2/execute", content=content, headers=headers)
    assert answer.json()["run"]["stdout"] == "hello\n"
    twice = content.replace('"version"', '"language": "c", "version"')
    answer = await live_fake.client.post("/api/v2/execute", content=twice, headers=headers)
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        "The body is not valid: 'language' is there twice.",
    )


async def test_a_failure_is_a_result(live: Live) -> None:
    run = (await execute(live, programs.FAILS.code)).json()["run"]
    assert (run["stdout"], run["stderr"], run["code"]) == ("out\n", "err\n", 3)
    assert (run["status"], run["message"]) == ("RE", "Exited with error status 3")


async def test_output_that_is_no_text(live: Live) -> None:
    assert (await execute(live, programs.BINARY.code)).json()["run"]["stdout"] == "\0\ufffd\ufffdA"


async def test_what_is_wrong_is_said(live_fake: Live) -> None:
    for body, message in WRONG:
        answer = await execute(live_fake, "", **body)
        assert (answer.status_code, answer.json()) == (400, {"message": message}), body


async def test_bodies_that_are_no_object(live_fake: Live) -> None:
    async def post(body: bytes, kind: str = "application/json") -> tuple[int, Any]:
        answer = await live_fake.client.post("/api/v2/execute", content=body, headers={"Content-Type": kind})
        return answer.status_code, answer.json()

    assert await post(b"{}", "text/plain") == (415, {"message": "requests must be of type application/json"})
    assert await post(b"[]") == (400, {"message": "the body must be a JSON object"})
    for body in (b"{", b'"\\ud800"', b"\xff", b"[" * 100_000):
        assert await post(body) == (400, {"message": "the body is not valid JSON"})
    assert (await post(b" " * (17 << 20)))[0] == 413


async def test_files_options_and_limits_reach_the_job(fake: FakeExecutor, live_fake: Live) -> None:
    files = [
        {"name": "data.bin", "content": base64.b64encode(b"\xff").decode(), "encoding": "base64"},
        {"name": "lib/a.py", "content": "", "encoding": "utf8"},
    ]
    limits = {"run_timeout": 1500, "run_cpu_time": 500, "run_memory_limit": 20_000_000, "compile_timeout": 9}
    assert (await execute(live_fake, "", files=files, **limits)).status_code == 200
    assert (await execute(live_fake, "", run_memory_limit=-1, run_timeout=0)).status_code == 200
    asked, plain = (execution.limits for execution in fake.executed)
    assert (asked.wall_seconds, asked.cpu_seconds, asked.memory_bytes) == (1.5, 0.5, 19 << 20)
    assert (plain.wall_seconds, plain.cpu_seconds, plain.memory_bytes) == (3.0, None, 512 << 20)


async def test_the_settings_bound_the_default_time(fake: FakeExecutor) -> None:
    limits = JobLimits(timeout_seconds=1, max_timeout_seconds=2)
    async with serving(settings_for(fake.path, limits=limits)) as live:
        await execute(live, "")
        assert fake.executed[0].limits.wall_seconds == 2.0


async def test_quotas_hold(fake: FakeExecutor) -> None:
    quota = Quota(jobs_per_hour=1)
    async with serving(settings_for(fake.path, quota=quota)) as live:
        assert (await execute(live, "")).status_code == 200
        answer = await execute(live, "")
        assert answer.status_code == 429
        assert set(answer.json()) == {"message"}
        assert int(answer.headers["retry-after"]) > 0
        assert "ratelimit" in answer.headers
        assert (
            await live.client.post("/run", content="", headers={"Content-Type": "text/plain"})
        ).status_code == 429


async def test_closing_the_connection_cancels(fake: FakeExecutor, live_fake: Live, deadline: float) -> None:
    task = asyncio.create_task(execute(live_fake, programs.WAITS.code))
    async with asyncio.timeout(deadline):
        await fake.until(lambda: fake.running)
        task.cancel()
        await fake.until(lambda: fake.hung_up == 1 and not fake.running)


async def test_without_an_executor(fake: FakeExecutor, live_fake: Live) -> None:
    await fake.stop()
    for answer in (await live_fake.client.get("/api/v2/runtimes"), await execute(live_fake, "")):
        assert answer.status_code == 503
        assert set(answer.json()) == {"message"}


async def test_an_executor_that_is_lost(live_fake: Live) -> None:
    from support.fake_executor import CONNECTION_LOST

    answer = await execute(live_fake, CONNECTION_LOST)
    assert (answer.status_code, set(answer.json())) == (503, {"message"})


async def test_off_unless_switched_on(fake: FakeExecutor) -> None:
    async with serving(settings_for(fake.path, Api())) as live:
        assert (await execute(live, "")).status_code == 404
        document = (await live.client.get("/openapi.json")).json()
    async with serving(settings_for(fake.path, Api(adapters=("piston", "judge0")))) as live:
        assert (await live.client.get("/openapi.json")).json() == document
