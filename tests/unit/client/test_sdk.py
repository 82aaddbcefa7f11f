"""What the SDK does beyond requests: live callbacks, batches, files of any kind, packages, waits that are told."""

import inspect
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from sandrun_client import (
    AsyncSandrunClient,
    ConnectionFailed,
    InvalidUpload,
    JobFailed,
    RateLimited,
    Result,
    SandrunClient,
    Waiting,
    dependencies,
    errors,
    tools,
)
from support import http_answers as answer
from unit.client.test_clients import form_of

Connect = Callable[..., Any]
REFUSED = {"error": "Rate limit exceeded", "reason": "CPU quota exhausted"}


def job(*events: bytes, **status: Any) -> Callable[[httpx.Request], httpx.Response]:
    """A server whose job gives these events."""
    ended = answer.status("j", **status)

    def handler(request: httpx.Request) -> httpx.Response:
        match request.method, request.url.path:
            case "POST", "/submit":
                return httpx.Response(200, json={"job_id": "j", "queue_position": None})
            case "GET", "/logs/j/events":
                return httpx.Response(200, content=b"".join(events) + answer.finished_event(99, ended))
            case "GET", "/status/j":
                return httpx.Response(200, json=ended)
            case "GET", "/logs/j":
                return httpx.Response(200, json=answer.logs("all", "of it"))
            case "DELETE", "/jobs/j":
                return httpx.Response(204)
        return httpx.Response(500)

    return handler


def test_output_is_heard_as_it_comes(connect: Connect) -> None:
    heard: list[tuple[str, str]] = []
    seen: list[str] = []
    inner = job(
        answer.output_event(1, "a\n"), answer.output_event(2, "e", "stderr"), answer.output_event(3, "b")
    )

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}")
        return inner(request)

    result = connect(handler).run(
        "x",
        on_stdout=lambda text: heard.append(("out", text)),
        on_stderr=lambda text: heard.append(("err", text)),
    )
    assert heard == [("out", "a\n"), ("err", "e"), ("out", "b")]
    assert (result.stdout, result.stderr, result.ok) == ("all", "of it", True)
    assert seen[-1] == "DELETE /jobs/j"  # as `run` leaves nothing either
    heard.clear()
    connect(inner).run("x", on_stderr=lambda text: heard.append(("err", text)))
    assert heard == [("err", "e")]


def test_a_listener_that_fails_cancels_the_job(connect: Connect) -> None:
    seen: list[str] = []
    inner = job(answer.output_event(1, "a\n"))

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        return inner(request)

    def fails(text: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        connect(handler).run("x", on_stdout=fails)
    assert seen == ["POST", "GET", "DELETE"]


def test_files_of_any_kind(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("a path")
    bodies: list[Any] = []

    def run(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json=answer.result())

    connect(run).run("x", files={"a": "text", "b": b"bytes", "c": tmp_path / "here"})
    assert bodies[0]["files"] == {"a": "text", "b": "bytes", "c": "a path"}
    forms: list[Any] = []
    inner = job()

    def submit(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            forms.append(form_of(request))
        return inner(request)

    connect(submit).run("x", files={"a": b"\xff"})  # which JSON cannot say
    assert b"\xff" in forms[0][1]["files"][1]
    with pytest.raises(InvalidUpload, match="cannot be read: No such file"):
        connect(run).run("x", files={"a": tmp_path / "none"})
    with pytest.raises(InvalidUpload, match="not int"):
        connect(run).run("x", files={"a": 3})


def test_results_are_read_like_documents() -> None:
    result = Result.of_run(answer.result(exit_code=3))
    assert result["logs"]["stdout"] == result["stdout"] == "hi\n"
    assert result["metrics"]["cpu_seconds"] == 0.5
    assert (result["exit_code"], result.get("nothing"), "exit_code" in result) == (3, None, True)
    with pytest.raises(KeyError):
        result["of_run"]


def test_check() -> None:
    result = Result.of_run(answer.result())
    assert result.check() is result
    failed = Result.of_run(
        answer.result(
            status="failed", verdict="nonzero_exit", exit_code=3, stderr="Traceback\nValueError: x\n"
        )
    )
    with pytest.raises(JobFailed, match=r"ended with exit code 3: ValueError: x") as caught:
        failed.check()
    assert caught.value.result is failed
    late = Result.of_run(
        answer.result(status="failed", verdict="wall_time_limit", exit_code=137, limits={"timeout": 2})
    )
    with pytest.raises(JobFailed, match="timed out after 2 s"):
        late.check()


def test_stats_and_environments(connect: Connect) -> None:
    quota = {"used": 1.5, "limit": None, "can_submit": False, "reason": "no", "retry_after": 9, "new": 1}
    stats = {"your_quota": quota, "system": {"queue_length": 1, "active_jobs": 2, "capacity": 4}}
    found = connect(lambda _: httpx.Response(200, json=stats)).get_stats()
    assert (found.quota.cpu_seconds, found.quota.max_cpu_seconds, found.quota.retry_after) == (1.5, None, 9)
    assert (found.system.capacity, found["system"]["capacity"], found["your_quota"]["new"]) == (4, 4, 1)
    given = {"templates": ["a"], "details": [{"name": "a", "packages": ["x==1"], "interpreters": ["node"]}]}
    found = connect(lambda _: httpx.Response(200, json=given)).list_environments()
    assert (found.names, found["templates"], len(found)) == (("a",), ["a"], 1)
    assert [item.packages for item in found] == [("x==1",)]


def coded(request: httpx.Request) -> httpx.Response:
    """A server that prints the code; the code `bad` is refused, `limit` for long."""
    code = json.loads(request.content)["code"]
    if code == "bad":
        return answer.refusal(400, "bad code")
    if code == "limit":
        return answer.refusal(429, "jobs", Retry_After="3582")
    return httpx.Response(200, json=answer.result(stdout=code))


def words(outcomes: list[Any]) -> list[str]:
    return [item.stdout if isinstance(item, Result) else type(item).__name__ for item in outcomes]


def test_map_keeps_what_succeeded(connect: Connect) -> None:
    told: list[int] = []
    programs = ["a", "bad", {"code": "b", "timeout": 3}, "c"]
    outcomes = connect(coded).map(programs, concurrency=3, on_result=lambda number, _: told.append(number))
    assert words(outcomes) == ["a", "InvalidRequest", "b", "c"]
    assert sorted(told) == [0, 1, 2, 3]


def test_map_stops_where_all_others_would_meet_the_same(connect: Connect) -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content)["code"])
        return coded(request)

    outcomes = connect(handler).map(["a", "limit", "b", "c"], concurrency=1)
    assert words(outcomes) == ["a", "RateLimited", "RateLimited", "RateLimited"]
    assert seen == ["a", "limit"]


@pytest.mark.parametrize("programs", [[3], [{"timeout": 1}]])
def test_map_takes_programs(connect: Connect, programs: list[Any]) -> None:
    with pytest.raises(InvalidUpload, match="A program of `map`"):
        connect(coded).map(programs)
    with pytest.raises(InvalidUpload, match="at least 1"):
        connect(coded).map(["a"], concurrency=0)


def test_map_runs_no_more_at_once_than_it_may() -> None:
    """And as many as it may: each waits for the other, so that one alone would never end."""
    both = threading.Barrier(2)
    most, running, lock = [0], [0], threading.Lock()

    def handler(request: httpx.Request) -> httpx.Response:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait(30)
        with lock:
            running[0] -= 1
        return coded(request)

    with SandrunClient("http://server.test", transport=httpx.MockTransport(handler)) as client:
        assert words(client.map("abcdef", concurrency=2)) == list("abcdef")
    assert most == [2]


def test_map_of_the_asynchronous_client_is_bounded() -> None:
    most, running = [0], [0]

    async def handler(request: httpx.Request) -> httpx.Response:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await anyio.lowlevel.checkpoint()
        running[0] -= 1
        return coded(request)

    async def main() -> None:
        transport = httpx.MockTransport(handler)
        async with AsyncSandrunClient("http://server.test", transport=transport) as client:
            assert words(await client.map("abcdef", concurrency=2)) == list("abcdef")

    anyio.run(main)
    assert most == [2]


def test_waits_are_told(connect: Connect, naps: list[float]) -> None:
    answers = [answer.refusal(429, "CPU quota exhausted", Retry_After="59"), httpx.Response(204)]
    told: list[Waiting] = []
    connect(lambda _: answers.pop(0), on_wait=told.append).cancel("j")
    assert [(waiting.seconds, waiting.reason) for waiting in told] == [(59, "CPU quota exhausted")]
    assert str(told[0]).startswith("waiting 59 s, at ")
    assert naps == [59]


def test_waits_are_logged(connect: Connect, naps: list[float], caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused", request=request)

    with pytest.raises(ConnectionFailed) as caught:
        connect(handler, retries=3).cancel("j")
    assert str(caught.value) == "http://server.test cannot be reached: Connection refused."
    assert len(caplog.records) >= 1
    assert {record.name for record in caplog.records} == {"sandrun_client"}
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_refusals_say_when_to_come_back(connect: Connect) -> None:
    with pytest.raises(RateLimited, match=r"jobs\. Try again in 1 h, at \d\d:\d\d:\d\d\.") as caught:
        connect(coded).run("limit")
    assert (caught.value.reason, caught.value.retry_after) == ("jobs", 3582)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (59, "59 s"), (119, "119 s"), (720, "12 min"), (7500, "2 h 5 min"), (7200, "2 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert errors.duration(seconds) == text


@pytest.mark.parametrize(
    ("options", "name", "content"),
    [
        ({}, "requirements.txt", b"pandas\nnumpy==2\n"),
        ({"interpreter": "py"}, "requirements.txt", b"pandas\nnumpy==2\n"),
    ],
)
def test_packages(connect: Connect, options: dict[str, str], name: str, content: bytes) -> None:
    bodies: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json=answer.result())

    connect(handler).run("x", packages=["pandas", "numpy==2"], **options)
    assert (bodies[0]["requirements"], bodies[0]["files"]) == (name, {name: content.decode()})
    assert "packages" not in bodies[0]
    connect(handler).run("x", packages=[])
    assert not {"packages", "requirements", "files"} & bodies[1].keys()


def test_packages_of_a_folder_and_of_node(connect: Connect, tmp_path: Path) -> None:
    forms: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        forms.append(form_of(request))
        return httpx.Response(200, json={"job_id": "j", "queue_position": None})

    (tmp_path / "main.py").write_text("x")
    (tmp_path / "requirements.txt").write_text("other")
    connect(handler).submit_directory(tmp_path, entrypoint="main.py", packages=["pandas"])
    assert json.loads(forms[0][0]["manifest"])["requirements"] == ".sandrun-requirements.txt"
    assert b"pandas\n" in forms[0][1]["files"][1]
    connect(handler).submit_code("x", interpreter="js", packages=["left-pad@1.3.0", "@a/b", "@a/c@^2"])
    assert json.loads(forms[1][0]["manifest"])["requirements"] == "package.json"
    wanted = b'{"left-pad": "1.3.0", "@a/b": "*", "@a/c": "^2"}'
    assert wanted in forms[1][1]["files"][1]


@pytest.mark.parametrize(
    "options",
    [
        {"interpreter": "ruby", "packages": ["x"]},
        {"packages": ["x"], "requirements": "r.txt"},
        {"packages": ["x\n-r /etc/passwd"]},
        {"packages": [" "]},
        {"interpreter": "node", "packages": ["a b"]},
    ],
)
def test_packages_that_cannot_be(connect: Connect, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidUpload):
        connect(lambda _: httpx.Response(500)).run("x", **options)


SCRIPT = (
    b'# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "rich",\n#   "x>=1",\n# ]\n# ///\n'
)


def test_packages_that_a_script_names() -> None:
    assert dependencies.of_script(b"import rich\n" + SCRIPT + b"print(1)") == ["rich", "x>=1"]
    assert dependencies.of_script(SCRIPT.replace(b"\n", b"\r\n")) == ["rich", "x>=1"]
    assert dependencies.of_script(b"# /// other\n# dependencies = ['x']\n# ///\n") == []
    assert dependencies.of_script(b"print('# ///')") == []
    for code in (
        SCRIPT + b"\n" + SCRIPT,
        b"# /// script\n# dependencies = [\n# ///\n",
        b"# /// script\n# dependencies = 3\n# ///\n",
    ):
        with pytest.raises(InvalidUpload, match="script"):
            dependencies.of_script(code)


@pytest.mark.parametrize(
    ("entrypoint", "files", "found"),
    [
        ("main.py", {"requirements.txt": b"# only\n\n"}, None),
        ("main.py", {"requirements.txt": b"# what\nrich\n"}, "requirements.txt"),
        ("main.sh", {"requirements.txt": b"rich\n"}, None),
        ("main.js", {"package.json": b'{"dependencies": {"a": "*"}}'}, "package.json"),
        ("main.js", {"package.json": b'{"type": "module"}'}, None),
        ("main.js", {"package.json": b"["}, None),
        ("main.py", {"package.json": b'{"dependencies": {"a": "*"}}'}, None),
    ],
)
def test_files_that_are_noticed(entrypoint: str, files: dict[str, bytes], found: str | None) -> None:
    assert dependencies.noticed(entrypoint, files) == found


def test_tools_of_agents() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if body["code"] == "fails":
            return httpx.Response(
                200, json=answer.result(status="failed", verdict="nonzero_exit", exit_code=3, stderr="E\n")
            )
        said = f"{body['code']} {body['interpreter']} {body.get('environment')} {body.get('files')}\n"
        return httpx.Response(200, json=answer.result(stdout=said))

    with SandrunClient("http://server.test", transport=httpx.MockTransport(handler)) as client:
        python, code = tools.functions(client, environment="ml-basic")
        assert python("1") == "1 python3 ml-basic None"
        assert code("1", "node", packages=["a"]).startswith("1 node None {'package.json'")
        assert tools.call(client, "run_python", '{"code": "2"}') == "2 python3 None None"
        assert "stderr:\nE\n[It ended with exit code 3.]" in python("fails")
        assert "not JSON" in tools.call(client, "run_python", "{")
        assert "do not fit" in tools.call(client, "run_python", {"kode": "2"})
        assert "no tool 'x'" in tools.call(client, "x", {})
        assert "did not run it: Packages can be named" in code("1", "ruby", ["x"])
        for definition, function in zip(tools.openai_tools(), tools.functions(client), strict=True):
            given = definition["function"]
            signature = inspect.signature(function)
            assert (given["name"], given["description"]) == (function.__name__, function.__doc__)
            assert set(given["parameters"]["properties"]) == set(signature.parameters)
            required = [
                name for name, item in signature.parameters.items() if item.default is inspect.Parameter.empty
            ]
            assert given["parameters"]["required"] == required
