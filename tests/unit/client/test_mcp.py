"""Parts of `sandrun mcp` that need no server: pieces, addresses, lines, and calls that are given up."""

import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import jsonschema
import pytest
from mcp import Client
from pydantic import ValidationError

from sandrun_client import AsyncSandrunClient, SandrunError
from sandrun_client.cli import main
from sandrun_client.mcp import calls as calls_module
from sandrun_client.mcp import server, transports
from sandrun_client.mcp.arguments import RunCode
from sandrun_client.mcp.calls import Calls, Program
from sandrun_client.mcp.pieces import ends, piece
from sandrun_client.mcp.tools import TOOLS, Tool

PAGE = (Path(__file__).parents[3] / "docs" / "mcp.md").read_text()
SNIPPETS = re.findall(r"```(json|toml)\n(.*?)```", PAGE, re.DOTALL)
PROGRAM = Program("print(1)", {}, {"interpreter": "python3"})
JOB = {"job_id": "J", "status": "queued", "queue_position": 0}
STATUS = {
    "job_id": "J",
    "status": "failed",
    "verdict": "nonzero_exit",
    "exit_code": 1,
    "signal": None,
    "detail": None,
    "metrics": {},
    "output_files": {},
}
GIVEN = {"code": "1", "language": "bash", "job_id": "J", "path": "a"}
LOGS = {"stdout": "", "stderr": "", "encoding": "utf-8", "truncated": False, "next_offset": 0}


@pytest.mark.parametrize("limit", [16, 17, 18, 19, 1000])
def test_pieces_are_cut_between_characters(limit: int) -> None:
    data = "aé€😀\n".encode() * 50
    text, offset = "", 0
    while offset is not None:
        part = piece(data, offset, limit)
        assert 0 < part.end - part.start <= limit
        text, offset = text + part.text, part.next
    assert text.encode() == data
    assert piece(data, len(data) + 5, limit).text == ""


@pytest.mark.parametrize("limit", [100, 101, 102, 103])
def test_ends_and_the_middle_are_the_whole(limit: int) -> None:
    data = "aé€😀\n".encode() * 50
    head, tail, start, end = ends(data, limit)
    assert (head + tail).encode() == data[:start] + data[end:]
    assert "�" not in head + tail
    assert len((head + tail).encode()) <= limit + 3


def test_bytes_that_are_no_text_are_cut_too() -> None:
    part = piece(b"\x80" * 100, 10, 20)
    assert (part.start, part.end, part.next) == (10, 30, 30)


def lines_of(data: bytes, largest: int = 1 << 20) -> list[bytes]:
    """What is read of a pipe with that in it."""
    receiving, sending = os.pipe()

    async def scene() -> list[bytes]:
        async def write() -> None:
            rest = data
            while rest:
                await anyio.wait_writable(sending)
                rest = rest[os.write(sending, rest[:4096]) :]
            os.close(sending)

        async with anyio.create_task_group() as group:
            group.start_soon(write)
            return [line async for line in transports.Lines(receiving, largest)]

    try:
        return anyio.run(scene)
    finally:
        os.close(receiving)


def test_lines_of_a_pipe() -> None:
    long = b"x" * 300_000
    assert lines_of(b"a\n\n" + long + b"\nb") == [b"a", b"", long, b"b"]
    assert lines_of(b"") == []


def test_a_message_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    path.write_bytes(b"x" * 5000)

    async def scene() -> None:
        with path.open("rb") as file:  # a file cannot be waited for, and need not be
            async for _ in transports.Lines(file.fileno(), 4000):
                pytest.fail("there is no line")

    with pytest.raises(SandrunError, match="more than"):
        anyio.run(scene)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9", "127.0.0.1", 9),
        (":9", "127.0.0.1", 9),
        ("9", "127.0.0.1", 9),
        ("localhost:0", "localhost", 0),
        ("[::1]:9", "::1", 9),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = transports.Address.of(text, ())
    assert (address.host, address.port) == (host, port)


@pytest.mark.parametrize("text", ["0.0.0.0:9", "[::]:9", "example.org:9", "192.0.2.1:9"])
def test_beyond_loopback_only_by_name(text: str) -> None:
    with pytest.raises(SandrunError, match="--allow-host"):
        transports.Address.of(text, ())
    security = transports.Address.of(text, ("tools.lan",)).security()
    assert security.enable_dns_rebinding_protection
    assert {"tools.lan", "tools.lan:*", "localhost:*"} <= set(security.allowed_hosts)
    assert "https://tools.lan" in security.allowed_origins
    assert not any(name.startswith("*") for name in security.allowed_hosts)


@pytest.mark.parametrize("text", ["x", "", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:-1"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(SandrunError, match="no address"):
        transports.Address.of(text, ())


def test_a_port_that_is_taken() -> None:
    with transports.Address("127.0.0.1", 0).bound() as taken:
        taken.listen()
        with pytest.raises(SandrunError, match="cannot be listened on"):
            transports.Address("127.0.0.1", taken.getsockname()[1]).bound()


@pytest.mark.parametrize("text", ["", "0", "x", "nan", "-1", "inf"])
def test_seconds_of_a_call(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SANDRUN_TIMEOUT", text)
    if text:
        with pytest.raises(SandrunError, match="SANDRUN_TIMEOUT"):
            server.call_seconds()
    else:
        assert server.call_seconds() == 30


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        (("--http", "0.0.0.0:1"), {}, "--allow-host"),
        (("--allow-host", "x"), {}, "--http"),
        ((), {"SANDRUN_TIMEOUT": "x"}, "SANDRUN_TIMEOUT"),
        ((), {"SANDRUN_URL": "x"}, "not the address of a server"),
    ],
)
def test_what_cannot_be_served_is_said(
    words: tuple[str, ...],
    more: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as left:
        main.main(["mcp", *words])
    assert left.value.code == 125
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err


def test_lists_and_objects_may_come_as_json_in_strings() -> None:
    """As some clients send them."""
    asked = RunCode.model_validate(
        {"code": "[1]", "language": "bash", "args": '["a"]', "files": '{"x": "[1]"}', "env": "{}"}
    )
    assert (asked.code, asked.args, asked.files, asked.env) == ("[1]", ["a"], {"x": "[1]"}, {})


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_schemas_have_no_references_and_take_null(tool: Tool) -> None:
    listed = tool.listed
    assert "$ref" not in json.dumps([listed.input_schema, listed.output_schema])
    assert "$defs" not in json.dumps([listed.input_schema, listed.output_schema])
    required = listed.input_schema.get("required", [])
    optional = dict.fromkeys(set(listed.input_schema["properties"]) - set(required))
    needed = {name: GIVEN[name] for name in required}
    jsonschema.validate({**needed, **optional}, listed.input_schema)
    assert tool.takes.model_validate({**needed, **optional}) == tool.takes.model_validate(needed)
    for name in required:
        with pytest.raises(ValidationError):
            tool.takes.model_validate({**needed, name: None})


def test_files_as_bytes_fit_the_schema() -> None:
    schema = next(tool for tool in TOOLS if tool.name == "run_code").listed.input_schema
    asked = {"code": "", "language": "Python", "files": {"a": "x", "b": {"base64": "eA=="}}}
    jsonschema.validate(asked, schema)
    assert RunCode.model_validate(asked).sources() == {"a": b"x", "b": b"x"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**asked, "files": {"b": {"base63": "eA=="}}}, schema)


@pytest.mark.parametrize(
    ("language", "interpreter"),
    [("Python", "python3"), ("PYTHON3", "python3"), ("JavaScript", "node"), ("js", "node"), ("C++", "cpp")],
)
def test_languages_in_whatever_case(language: str, interpreter: str) -> None:
    asked: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            asked.append(json.loads(re.findall(rb'\{"entrypoint.*\}', request.read())[0]))
        answers = {"/submit": JOB, "/status/J": STATUS, "/logs/J": LOGS}
        return httpx.Response(200 if request.method != "DELETE" else 204, json=answers.get(request.url.path))

    async def scene() -> None:
        async with Client(server.make_server(calls_of(handler), "1"), mode="legacy") as client:
            given = {"code": "1", "language": language, "args": None, "files": None, "stdin": None}
            assert not (await client.call_tool("run_code", given)).is_error

    anyio.run(scene)
    assert [manifest["interpreter"] for manifest in asked] == [interpreter]


def calls_of(handler: Callable[[httpx.Request], Any], seconds: float = 60) -> Calls:
    return Calls(
        AsyncSandrunClient("http://server.test", transport=httpx.MockTransport(handler), retries=0), seconds
    )


def test_a_call_given_up_while_its_job_is_submitted_leaves_none() -> None:
    """The answer comes after the call was cancelled, and still tells which job to cancel."""
    deleted: list[str] = []

    async def scene() -> None:
        submitted, cancelled = anyio.Event(), anyio.Event()

        async def handler(request: httpx.Request) -> httpx.Response:
            if request.method == "DELETE":
                deleted.append(request.url.path)
                return httpx.Response(204)
            submitted.set()
            await cancelled.wait()
            return httpx.Response(200, json=JOB)

        calls = calls_of(handler)
        async with calls.client, anyio.create_task_group() as group:
            group.start_soon(calls.execute, PROGRAM, None)
            await submitted.wait()
            group.cancel_scope.cancel()
            cancelled.set()

    anyio.run(scene)
    assert deleted == ["/jobs/J"]


def test_only_so_many_calls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "MOST_CALLS", 1)

    async def scene() -> None:
        calls = calls_of(lambda _: httpx.Response(404))
        with calls.entered(), pytest.raises(SandrunError, match="1 calls"), calls.entered():
            pytest.fail("there is no room")
        with calls.entered():
            pass

    anyio.run(scene)


@pytest.mark.parametrize("stopped", [True, False])
def test_calls_end_with_the_server_and_with_their_time(stopped: bool) -> None:
    deleted: list[str] = []

    async def scene() -> None:
        waiting = anyio.Event()

        async def handler(request: httpx.Request) -> httpx.Response:
            if request.method == "DELETE":
                deleted.append(request.url.path)
                return httpx.Response(204)
            if request.method == "POST":
                return httpx.Response(200, json=JOB)
            waiting.set()
            await anyio.sleep_forever()
            raise AssertionError

        calls = calls_of(handler, 60 if stopped else 1)
        async with Client(server.make_server(calls, "1"), mode="legacy") as client:

            async def call() -> None:
                result = await client.call_tool("execute_bash", {"code": ""})
                assert result.is_error
                said = "stopping" if stopped else "The job is J"
                assert said in str(result.content)

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await waiting.wait()
                if stopped:
                    await calls.aclose()
            if stopped:
                assert (await client.call_tool("list_environments", {})).is_error

    anyio.run(scene)
    # Who is told of the job may still want it.
    assert deleted == ["/jobs/J"] * stopped


@pytest.mark.parametrize("verdict", ["setup_error", "executor_lost", "internal_error", "nonzero_exit"])
def test_an_error_is_only_what_is_the_fault_of_sandrun(verdict: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        answers = {"/submit": JOB, "/status/J": {**STATUS, "verdict": verdict}, "/logs/J": LOGS}
        return httpx.Response(200, json=answers.get(request.url.path))

    async def scene() -> None:
        async with Client(server.make_server(calls_of(handler), "1"), mode="legacy") as client:
            result = await client.call_tool("execute_bash", {"code": "false"})
        assert result.is_error == (verdict != "nonzero_exit")

    anyio.run(scene)


def test_refusals_say_when_to_come_back() -> None:
    refusal = {"error": "Rate limit exceeded", "reason": "Too many jobs.", "retry_after": 45}

    async def scene() -> None:
        calls = calls_of(lambda _: httpx.Response(429, json=refusal, headers={"Retry-After": "45"}))
        async with Client(server.make_server(calls, "1"), mode="legacy") as client:
            result = await client.call_tool("execute_bash", {"code": ""})
        assert result.is_error
        assert "Too many jobs. Try again in 45 seconds." in str(result.content)

    anyio.run(scene)


@pytest.mark.parametrize(("language", "text"), SNIPPETS)
def test_configurations_of_the_page(language: str, text: str) -> None:
    document = json.loads(text) if language == "json" else tomllib.loads(text)
    (servers,) = document.values()
    entry = servers["sandrun"]
    assert [entry["command"], *entry["args"]] == ["sandrun", "mcp"]
    assert set(entry["env"]) <= {"SANDRUN_URL", "SANDRUN_TIMEOUT"}


def test_the_page_knows_every_tool() -> None:
    assert len(SNIPPETS) == 3
    assert [tool.name for tool in TOOLS if f"`{tool.name}`" not in PAGE] == []


def test_progress_tells_the_place_in_the_queue_then_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "MIN_WAIT_SECONDS", 0)
    states = [
        {"status": "queued", "verdict": None, "exit_code": None, "queue_position": 3},
        {"status": "running", "verdict": None, "exit_code": None},
        {"status": "running", "verdict": None, "exit_code": None},
        {},
    ]
    printed = iter(["", "one\ntw\x1b[1mo\n", "all"])
    said: list[tuple[float, str | None]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/status/J":
            return httpx.Response(200, json={**STATUS, **states.pop(0)})
        if request.url.path == "/logs/J":
            return httpx.Response(200, json={**LOGS, "stdout": next(printed)})
        return httpx.Response(200 if request.method == "POST" else 204, json=JOB)

    async def progress(value: float, _: float | None, message: str | None) -> None:
        said.append((value, message))

    async def scene() -> None:
        async with Client(server.make_server(calls_of(handler), "1"), mode="legacy") as client:
            result = await client.call_tool("execute_bash", {"code": ""}, progress_callback=progress)
        assert result.structured_content["stdout"] == "all"

    anyio.run(scene)
    messages = [message for _, message in said]
    assert messages[:2] == ["submitted as J", "waiting, at position 3 in the queue"]
    assert re.fullmatch(r"running for \d+ s", messages[2] or "")
    assert messages[3:] == ["tw[1mo"]  # no word of a job steers a terminal
    assert [value for value, _ in said] == sorted({value for value, _ in said})
