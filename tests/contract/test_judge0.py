"""Judge0's interface, whichever executor is behind the api."""

import asyncio
import base64
import io
import json
import re
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandrun_api.adapters.judge0 import routes
from sandrun_shared.settings import Api, Executor, Quota, Settings
from support import programs
from support.fake_executor import CONNECTION_LOST, FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
ADAPTERS = Api(adapters=("judge0",))
UNLIMITED = Quota(cpu_seconds_per_minute=0, concurrent_jobs=0, jobs_per_hour=0, queued_jobs=0)


def settings_for(path: Path, api: Api = ADAPTERS, quota: Quota = UNLIMITED, **tables: Any) -> Settings:
    return Settings(executor=Executor(socket=str(path)), api=api, quota=quota, **tables)


DEFAULT = {"stdout", "time", "memory", "stderr", "token", "compile_output", "message", "status"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


WRONG: list[tuple[str, dict[str, object], int, object]] = [
    (
        "",
        {"source_code": None, "language_id": None},
        422,
        {"source_code": ["can't be blank"], "language_id": ["can't be blank"]},
    ),
    ("base64_encoded=true", {"source_code": "a"}, 422, {"source_code": ["is not valid Base64"]}),
    ("base64_encoded=true", {"source_code": "YQ==", "stdin": "/w=="}, 422, {"stdin": ["is not UTF-8"]}),
    (
        "",
        {"command_line_arguments": "\0"},
        422,
        {"command_line_arguments": ["A NUL cannot be passed to a program."]},
    ),
    ("fields=nonsense,stdout", {}, 400, {"error": "invalid fields: [nonsense]"}),
]


@pytest.fixture
def settings_of() -> Callable[[Path], Settings]:
    return settings_for


async def submit(live: Live, code: str | None, query: str = "wait=true", **more: object) -> httpx.Response:
    body = {"language_id": 71, "source_code": code, **more}
    return await live.client.post(f"/submissions?{query}", json=body)


async def finished(live: Live, token: str, fields: str = "*") -> dict[str, Any]:
    """The submission once it has ended, however often that must be asked."""
    while True:
        body = (
            await live.client.get(f"/submissions/{token}?fields={fields},status&base64_encoded=true")
        ).json()
        if body["status"]["id"] > 2:
            return dict(body)


def zipped(**files: str) -> str:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return base64.b64encode(buffer.getvalue()).decode()


async def test_null_and_a_byte_order_mark(live_fake: Live) -> None:
    names = (
        "stdin",
        "expected_output",
        "command_line_arguments",
        "cpu_time_limit",
        "memory_limit",
        "callback_url",
    )
    body = {"language_id": 71, "source_code": programs.HELLO.code, **dict.fromkeys(names)}
    answer = await live_fake.client.post(
        "/submissions?wait=true",
        content="\ufeff" + json.dumps(body),
        headers={"content-type": "application/json"},
    )
    assert answer.json()["stdout"] == "hello\n"


async def test_wait_for_the_result(live: Live) -> None:
    answer = await submit(live, programs.HELLO.code, expected_output="hello")
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert set(body) == DEFAULT
    assert UUID.match(body["token"])
    assert float(body["time"]) >= 0
    assert isinstance(body["memory"], int)
    assert body["status"] == {"id": 3, "description": "Accepted"}
    assert (body["stdout"], body["stderr"], body["compile_output"], body["message"]) == (
        "hello\n",
        None,
        None,
        None,
    )
    assert (await live.client.get(f"/submissions/{body['token']}")).json() == body


async def test_a_slash_at_the_end_does_not_matter(live_fake: Live) -> None:
    body = {"language_id": 71, "source_code": programs.HELLO.code}
    answer = await live_fake.client.post("/submissions/?wait=true", json=body)
    assert answer.status_code == 201
    for path in (f"/submissions/{answer.json()['token']}/", "/languages/", "/languages/71/", "/statuses/"):
        assert (await live_fake.client.get(path)).json() == (await live_fake.client.get(path[:-1])).json()


async def test_ask_again_later(live: Live) -> None:
    answer = await submit(live, programs.FAILS.code, "base64_encoded=false", expected_output="no")
    assert answer.status_code == 201
    assert set(answer.json()) == {"token"}
    body = await finished(live, answer.json()["token"])
    assert base64.b64decode(body["stdout"]) == b"out\n"
    assert base64.b64decode(body["message"]) == b"Exited with error status 3"
    assert (body["status_id"], body["exit_code"], body["exit_signal"]) == (11, 3, None)
    assert body["language"]["id"] == body["language_id"] == 71
    assert base64.b64decode(body["source_code"]).decode() == programs.FAILS.code
    moments = [
        datetime.strptime(body[name], "%Y-%m-%dT%H:%M:%S.%fZ") for name in ("created_at", "finished_at")
    ]
    assert moments == sorted(moments)


async def test_base64_in_and_out(live: Live) -> None:
    code, expected = (
        base64.encodebytes(text).decode() for text in (programs.BINARY.code.encode(), b"\0\xff\xfeA")
    )
    answer = await submit(
        live, code, "wait=true&base64_encoded=true&fields=stdout,status_id", expected_output=expected
    )
    assert answer.json() == {"stdout": base64.b64encode(b"\0\xff\xfeA").decode(), "status_id": 3}


async def test_what_is_no_text_needs_base64(live: Live) -> None:
    answer = await submit(live, programs.BINARY.code)
    assert answer.status_code == 201
    assert set(answer.json()) == {"token", "error"}
    token = answer.json()["token"]
    for path in (f"/submissions/{token}", f"/submissions/batch?tokens={token}"):
        again = await live.client.get(path)
        assert again.status_code == 400
        assert "base64_encoded=true" in again.json()["error"]
    assert (await live.client.get(f"/submissions/{token}?fields=status_id")).json() == {"status_id": 3}


async def test_batches(live: Live) -> None:
    asked = [
        {"language_id": 71, "source_code": programs.HELLO.code},
        {"language_id": 71},
        {"language_id": 71, "source_code": programs.FAILS.code},
        "no object",
    ]
    answer = await live.client.post("/submissions/batch", json={"submissions": asked})
    assert answer.status_code == 201
    first, wrong, second, none = answer.json()
    assert (wrong, none) == ({"source_code": ["can't be blank"]}, {"error": ["is not a JSON object"]})
    await finished(live, second["token"])
    await finished(live, first["token"])
    tokens = f"{first['token']},unknown,{second['token']}"
    found = (await live.client.get(f"/submissions/batch?tokens={tokens}&fields=stdout,status_id")).json()
    results = [{"stdout": "hello\n", "status_id": 3}, None, {"stdout": "out\n", "status_id": 11}]
    assert found == {"submissions": results}


async def test_batches_are_bounded(live_fake: Live) -> None:
    client = live_fake.client
    for body, reason in (
        ({}, "at least one"),
        ({"submissions": []}, "at least one"),
        ({"submissions": [{}] * 21}, "less than or equal to 20"),
    ):
        answer = await client.post("/submissions/batch", json=body)
        assert answer.status_code == 400
        assert reason in answer.json()["error"]
    assert (await client.post("/submissions/batch", json={"submissions": [{}]})).status_code == 422
    assert (await client.get("/submissions/batch?tokens=,")).status_code == 400
    assert (await client.get("/submissions/batch?tokens=" + "a," * 21)).status_code == 400


async def test_a_batch_that_is_too_large_for_one_answer(
    live_fake: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "MAX_ANSWER_BYTES", 100)
    tokens = [(await submit(live_fake, programs.HELLO.code)).json()["token"] for _ in range(5)]
    path = f"/submissions/batch?tokens={','.join(tokens)}"
    assert (await live_fake.client.get(path)).status_code == 413
    assert (await live_fake.client.get(f"{path}&fields=status_id")).status_code == 200


async def test_delete(live_fake: Live, fake: FakeExecutor, deadline: float) -> None:
    token = (await submit(live_fake, programs.WAITS.code, "")).json()["token"]
    async with asyncio.timeout(deadline):
        await fake.until(lambda: fake.running)
    refused = await live_fake.client.delete(f"/submissions/{token}")
    assert refused.status_code == 400
    assert refused.json() == {"error": "submission cannot be deleted because its status is 2 (Processing)"}
    token = (await submit(live_fake, programs.HELLO.code)).json()["token"]
    deleted = await live_fake.client.delete(f"/submissions/{token}?fields=stdout")
    assert deleted.json() == {"stdout": base64.b64encode(b"hello\n").decode()}
    assert (await live_fake.client.get(f"/submissions/{token}")).status_code == 404


async def test_a_job_that_is_gone_is_gone_here_too(live: Live) -> None:
    answer = await submit(live, programs.HELLO.code)
    assert (await live.client.delete(f"/jobs/{answer.headers['sandrun-job-id']}")).status_code == 204
    again = await live.client.get(f"/submissions/{answer.json()['token']}")
    assert again.status_code == 404
    assert set(again.json()) == {"error"}


async def test_languages_statuses_and_the_rest(live: Live) -> None:
    client = live.client
    languages = (await client.get("/languages")).json()
    assert (await client.get("/languages/all")).json() == languages
    numbers = [language["id"] for language in languages]
    assert numbers == sorted(numbers)
    assert {46, 71, 89} <= set(numbers)
    python = (await client.get("/languages/71")).json()
    assert set(python) == {"id", "name", "is_archived", "source_file", "compile_cmd", "run_cmd"}
    assert python["name"].startswith("Python (")
    for unknown in ("/languages/1", "/languages/x", "/languages/²"):
        assert (await client.get(unknown)).status_code == 404
    statuses = (await client.get("/statuses")).json()
    assert [status["id"] for status in statuses] == list(range(1, 15))
    assert (await client.get("/about")).json()["version"] == (await client.get("/version")).text == "1.13.1"
    assert (await client.get("/config_info")).json()["enable_wait_result"] is True


async def test_additional_files(live: Live) -> None:
    answer = await submit(live, programs.HELLO.code, "", additional_files=zipped(**{"data/a.txt": "x"}))
    assert answer.status_code == 201, answer.text
    await finished(live, answer.json()["token"])
    for archive, reason in (
        (zipped(**{"script.py": ""}), "has a file 'script.py', which is the name of the source code"),
        (zipped(**{"script.py/a": ""}), "Member 'script.py' appears both as a file and as something else."),
        (zipped(**{"../a": ""}), "Member '../a' leaves the work directory."),
        (base64.b64encode(b"no zip").decode(), "cannot be read as one"),
    ):
        answer = await submit(live, "1", additional_files=archive)
        assert answer.status_code == 422
        assert reason in answer.json()["additional_files"][0]


async def test_programs_of_many_files(live_fake: Live, fake: FakeExecutor) -> None:
    async def project(**files: str) -> httpx.Response:
        return await submit(live_fake, None, language_id=89, additional_files=zipped(**files))

    assert (await project(**{"run.sh": "python3 a.py", "a.py": ""})).status_code == 201
    assert fake.executed[0].interpreter == "bash"
    assert (await project(**{"run": ""})).status_code == 201
    assert (await project(**{"a.py": ""})).json() == {"additional_files": ["has no script 'run' or 'run.sh'"]}
    assert "compile" in (await project(run="", compile="")).json()["additional_files"][0]


async def test_limits_reach_the_job(fake: FakeExecutor, live_fake: Live) -> None:
    limits = {"cpu_time_limit": 1.5, "wall_time_limit": "2.5", "memory_limit": 20_000}
    assert (await submit(live_fake, "1", **limits, max_processes_and_or_threads=7)).status_code == 201
    assert (await submit(live_fake, "1")).status_code == 201
    asked, plain = (execution.limits for execution in fake.executed)
    assert (asked.cpu_seconds, asked.wall_seconds, asked.memory_bytes) == (1.5, 2.5, 19 << 20)
    assert (asked.processes, plain.processes) == (7, 128)
    assert (plain.cpu_seconds, plain.wall_seconds, plain.memory_bytes) == (5.0, 10.0, 512 << 20)
    refused = await submit(live_fake, "1", max_processes_and_or_threads=129)
    assert refused.json() == {"max_processes_and_or_threads": ["must be less than or equal to 128"]}


async def test_what_is_wrong_is_said(live_fake: Live) -> None:
    for query, body, status, answer in WRONG:
        response = await submit(live_fake, "1", query, **body)
        assert (response.status_code, response.json()) == (status, answer), (query, body)


async def test_bodies_that_are_no_object(live_fake: Live) -> None:
    for body, kind, status in (
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b" " * (17 << 20), "application/json", 413),
    ):
        answer = await live_fake.client.post("/submissions", content=body, headers={"Content-Type": kind})
        assert (answer.status_code, set(answer.json())) == (status, {"error"})


async def test_quotas_hold(fake: FakeExecutor) -> None:
    async with serving(settings_for(fake.path, quota=Quota(jobs_per_hour=2))) as live:
        asked = [{"language_id": 71, "source_code": "1"}] * 3
        answer = await live.client.post("/submissions/batch", json={"submissions": asked})
        assert [set(item) for item in answer.json()] == [{"token"}, {"token"}, {"error"}]
        for refused in (
            await submit(live, "1"),
            await live.client.post("/submissions/batch", json={"submissions": asked}),
        ):
            assert refused.status_code == 429
            assert set(refused.json()) == {"error"}
            assert int(refused.headers["retry-after"]) > 0


async def test_closing_the_connection_cancels(fake: FakeExecutor, live_fake: Live, deadline: float) -> None:
    task = asyncio.create_task(submit(live_fake, programs.WAITS.code))
    async with asyncio.timeout(deadline):
        await fake.until(lambda: fake.running)
        task.cancel()
        await fake.until(lambda: fake.hung_up == 1 and not fake.running)


async def test_what_a_submission_keeps_counts_and_is_given_back(live_fake: Live) -> None:
    budget = live_fake.server.config.loaded_app.state.service.budget
    before = budget.used_bytes
    answer = await submit(live_fake, programs.HELLO.code, expected_output="x" * 100_000)
    assert budget.used_bytes > before + 100_000
    await live_fake.client.delete(f"/submissions/{answer.json()['token']}")
    assert budget.used_bytes == before


async def test_an_executor_that_is_lost(live_fake: Live) -> None:
    answer = await submit(live_fake, CONNECTION_LOST)
    assert (answer.status_code, set(answer.json())) == (503, {"error"})
    token = (await submit(live_fake, CONNECTION_LOST, "")).json()["token"]
    assert (await finished(live_fake, token))["status"] == {"id": 13, "description": "Internal Error"}
