"""`sandrun mcp` before the real service, with the SDK's own client."""

import base64
import functools
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import httpx
import jsonschema
import pytest
from mcp import Client, MCPError
from mcp_types import (
    LATEST_PROTOCOL_VERSION,
    BlobResourceContents,
    ImageContent,
    ResourceLink,
    TextResourceContents,
)
from nacl.signing import SigningKey

from sandrun_shared.keys import KeyKind, write_new
from sandrun_shared.keys import text_of as key_text
from support import machine
from support.mcp_clients import ERAS, SECONDS, Clients, HttpServer, Session, in_process, started, text_of
from support.service import Service, free_port

SEED = bytes(range(32))
WORKER = key_text(bytes(SigningKey(SEED).verify_key))
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MAKES_FILES = f"""
import base64, os, sys
os.makedirs("results")
open("results/data 100%.csv", "w").write("a,ä\\n" * 2000)
open("p.png", "wb").write(base64.b64decode("{PICTURE}"))
open("bytes.bin", "wb").write(bytes(range(256)))
print("out"); print("err", file=sys.stderr); sys.exit(3)
"""
LASTS = "import time\nprint('started', flush=True)\ntime.sleep(600)\n"
TOOLS = {
    *(f"execute_{name}" for name in ("python", "javascript", "bash")),
    *("run_code", "submit_job", "check_job_status", "get_job_logs", "get_job_file", "cancel_job"),
    "list_environments",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose worker signs."""
    key = tmp_path_factory.mktemp("key") / "worker.key"
    write_new(key, KeyKind.worker, SEED)
    with Service(worker_key=key) as running:
        yield running


@pytest.fixture(scope="module")
def url(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}"


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[HttpServer]:
    with HttpServer(url) as running:
        yield running


@pytest.fixture(params=[(way, era) for way in ("stdio", "http") for era in ERAS], ids="-".join)
def clients(request: pytest.FixtureRequest, url: str, http: HttpServer) -> Clients:
    return Clients(*request.param, url, http)


def no_job_is_left(service: Service) -> bool:
    system = service.client.get("/stats").json()["system"]
    return bool(system["active_jobs"] == 0 and system["queue_length"] == 0)


async def eventually(condition: Callable[[], bool]) -> bool:
    return await anyio.to_thread.run_sync(machine.eventually, condition)


def test_every_tool(clients: Clients, service: Service) -> None:
    """One connection through everything, in each era and over each transport."""

    async def main() -> None:
        async with clients.connect() as client:
            assert client.protocol_version == ERAS[clients.mode]
            assert client.server_info is not None
            assert client.server_info.name == "sandrun"
            assert "not an error" in (client.instructions or "")
            session = Session(client)
            await offers(session)
            await runs_languages(session)
            job = await leaves_files(session)
            await reads_files(session, job)
            await follows_a_job(session)
            await gives_up(session, service)

    assert ERAS["auto"] == LATEST_PROTOCOL_VERSION
    anyio.run(main)


async def offers(session: Session) -> None:
    tools = await session.tools()
    assert set(tools) == TOOLS
    for tool in tools.values():
        assert tool.title
        assert tool.description
        assert tool.annotations is not None
        hints = tool.annotations
        assert None not in (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint)
        assert hints.open_world_hint is False
        assert hints.read_only_hint == (tool.name.startswith(("get_", "list_", "check_")))
        assert hints.destructive_hint == (tool.name == "cancel_job")
        for schema in (tool.input_schema, tool.output_schema):
            assert schema is not None
            assert schema["type"] == "object"
            jsonschema.Draft202012Validator.check_schema(schema)
    templates = (await session.client.list_resource_templates()).resource_templates
    assert [template.uri_template for template in templates] == ["sandrun://jobs/{job_id}/files/{+path}"]
    assert (await session.client.list_resources()).resources == []
    found = (await session.call("list_environments")).structured_content
    assert "default" in [item["name"] for item in found["environments"]]
    assert "python3" in found["languages"]
    assert found["limits"]["max_memory_mb"] >= 512


async def runs_languages(session: Session) -> None:
    result = await session.call("execute_python", code="print(input() * 2)", stdin="ab\n", timeout=20)
    assert result.structured_content["stdout"] == "abab\n"
    assert (result.structured_content["status"], result.structured_content["kept"]) == ("completed", False)
    assert "abab" in text_of(result)
    # Nothing is left of a job of which everything was said.
    assert (
        "no such job"
        in (await session.refused("get_job_logs", job_id=result.structured_content["job_id"])).lower()
    )
    result = await session.call("execute_javascript", code="console.log(6 * 7)")
    assert result.structured_content["stdout"] == "42\n"
    result = await session.call("execute_bash", code="echo $((6 * 7)); kill -SEGV $$")
    assert (result.structured_content["stdout"], result.structured_content["signal"]) == ("42\n", 11)
    assert "SIGSEGV" in text_of(result)
    result = await session.call(
        "run_code",
        language="perl",
        code="use v5.10; say $ENV{NAME}, join ',', @ARGV; say <STDIN>; open F, 'd/x'; say length <F>",
        args=["1", "ä"],
        env={"NAME": "n"},
        stdin="typed",
        files={"d/x": {"base64": base64.b64encode(bytes(range(128, 228))).decode()}, "y": "text"},
        environment="default",
        memory_mb=128,
        outputs=["*.none"],
    )
    assert result.structured_content["stdout"] == "n1,ä\ntyped\n100\n"


async def leaves_files(session: Session) -> str:
    result = await session.call("run_code", language="python", code=MAKES_FILES)
    answer = result.structured_content
    assert (answer["exit_code"], answer["verdict"]) == (3, "nonzero_exit")
    assert (answer["stdout"], answer["stderr"]) == ("out\n", "err\n")
    images = [block for block in result.content if isinstance(block, ImageContent)]
    assert [(image.data, image.mime_type) for image in images] == [(PICTURE, "image/png")]
    links = {block.name: block for block in result.content if isinstance(block, ResourceLink)}
    assert set(links) == {"results/data 100%.csv", "bytes.bin"}
    sizes = {file["path"]: file["size_bytes"] for file in answer["files"]}
    assert sizes == {"results/data 100%.csv": 10000, "bytes.bin": 256, "p.png": 70}

    contents = (await session.client.read_resource(links["results/data 100%.csv"].uri)).contents
    assert isinstance(contents[0], TextResourceContents)
    assert contents[0].text == "a,ä\n" * 2000
    assert contents[0].mime_type == "text/csv"
    contents = (await session.client.read_resource(links["bytes.bin"].uri)).contents
    assert isinstance(contents[0], BlobResourceContents)
    assert base64.b64decode(contents[0].blob) == bytes(range(256))
    for uri in (f"{links['bytes.bin'].uri}x", "sandrun://jobs/unknown/files/a", "file:///etc/passwd"):
        with pytest.raises(MCPError):
            await session.client.read_resource(uri)
    return str(answer["job_id"])


async def reads_files(session: Session, job: str) -> None:
    read = functools.partial(session.call, "get_job_file", job_id=job)
    whole, offset = "", 0
    while offset is not None:  # cuts in the middle of characters
        part = (await read(path="results/data 100%.csv", offset=offset, limit=4000)).structured_content
        assert part["encoding"] == "utf-8"
        whole, offset = whole + part["content"], part["next_offset"]
    assert whole == "a,ä\n" * 2000
    result = await read(path="p.png")
    assert isinstance(result.content[1], ImageContent)
    assert result.content[1].data == PICTURE
    result = await read(path="./bytes.bin")
    assert isinstance(result.content[1], ResourceLink)
    assert (result.structured_content["encoding"], result.structured_content["content"]) == ("none", "")
    part = (await read(path="bytes.bin", encoding="base64", offset=250, limit=100)).structured_content
    assert base64.b64decode(part["content"]) == bytes(range(250, 256))
    assert "p.png" in await session.refused("get_job_file", job_id=job, path="other")
    assert (await session.call("cancel_job", job_id=job)).structured_content["existed"] is True


async def follows_a_job(session: Session) -> None:
    submitted = await session.call(
        "submit_job", language="bash", code="echo begun; sleep 600", priority="batch"
    )
    job = submitted.structured_content["job_id"]
    assert job in text_of(submitted)
    logs: dict[str, Any] = {"text": ""}
    with anyio.fail_after(60):
        while not logs["text"]:
            logs = (await session.call("get_job_logs", job_id=job)).structured_content
    assert (logs["text"], logs["next_offset"], logs["size_bytes"]) == ("begun\n", None, 6)
    answer = (await session.call("check_job_status", job_id=job)).structured_content
    assert (answer["status"], answer["finished"], answer["stdout"]) == ("running", False, "begun\n")
    assert "before it is finished" in await session.refused("get_job_file", job_id=job, path="a")
    assert (await session.call("cancel_job", job_id=job)).structured_content["existed"] is True
    assert (await session.call("cancel_job", job_id=job)).structured_content["existed"] is False


async def gives_up(session: Session, service: Service) -> None:
    """A call that is cancelled cancels its job, and the connection stays usable."""
    with anyio.fail_after(SECONDS), anyio.CancelScope() as scope:

        async def progress(_: float, __: float | None, text: str | None) -> None:
            if text == "started":  # what the program printed
                scope.cancel()

        await session.client.call_tool("execute_python", {"code": LASTS}, progress_callback=progress)
    assert scope.cancelled_caught
    assert await eventually(lambda: no_job_is_left(service))
    await session.call("execute_bash", code="echo 1")


def test_a_long_run_becomes_a_handle(url: str) -> None:
    async def main() -> None:
        said: list[tuple[float, str | None]] = []

        async def progress(value: float, _: float | None, message: str | None) -> None:
            said.append((value, message))

        async with in_process(url, seconds=4) as client:
            session = Session(client)
            code = "import time\nprint('begun', flush=True)\ntime.sleep(4.5)\nprint('done')\nopen('f', 'w').write('x')"
            result = await client.call_tool("execute_python", {"code": code}, progress_callback=progress)
            assert not result.is_error
            answer = result.structured_content
            assert (answer["finished"], answer["status"], answer["kept"]) == (False, "running", True)
            assert answer["stdout"] == "begun\n"
            assert f'check_job_status(job_id="{answer["job_id"]}"' in text_of(result)
            assert said[0][1] == f"submitted as {answer['job_id']}"
            assert [value for value, _ in said] == sorted({value for value, _ in said})
            job = answer["job_id"]
            while not answer["finished"]:
                answer = (await session.call("check_job_status", job_id=job, wait=60)).structured_content
            assert (answer["stdout"], answer["status"]) == ("begun\ndone\n", "completed")
            assert [file["path"] for file in answer["files"]] == ["f"]
            await session.call("cancel_job", job_id=job)

    anyio.run(main)


def test_results_and_errors(url: str) -> None:
    """A program that fails is a result; so is one that meets a limit. What Sandrun refuses is an error."""

    async def main() -> None:
        async with in_process(url, verify_with=WORKER) as client:
            session = Session(client)
            result = await session.call(
                "run_code", language="python", code="x = ' ' * (1 << 30)", memory_mb=64
            )
            assert result.structured_content["verdict"] == "memory_limit"
            assert "ran out of memory: 64 MB" in text_of(result)
            result = await session.call("execute_python", code="while True: pass", timeout=0.5)
            assert result.structured_content["verdict"] == "wall_time_limit"
            assert "timed out" in text_of(result)
            await shortens(session)
            assert "foo: " in await session.refused("execute_bash", code="", foo=1)
            assert "timeout: " in await session.refused("execute_bash", code="", timeout=-1)
            refusal = await session.refused("run_code", language="bash", code="", env={"LD_PRELOAD": "x"})
            assert "LD_PRELOAD" in refusal
            assert "cobol" in await session.refused("run_code", language="cobol", code="")
            assert "nowhere" in await session.refused("execute_bash", code="", environment="nowhere")
            assert "no such job" in (await session.refused("check_job_status", job_id="x")).lower()
            assert "job_id: " in await session.refused("check_job_status", job_id="x/../y")
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool("rm", {})

    anyio.run(main)


async def shortens(session: Session) -> None:
    """Output that is much comes in part, with a pointer to the rest that leads there."""
    code = "for i in range(20_000): print('é', i)"
    result = await session.call("execute_python", code=code)
    answer = result.structured_content
    left_out = answer["stdout_left_out"]
    assert answer["kept"] is True
    assert len(answer["stdout"].encode()) < 21_000
    assert answer["stderr_left_out"] is None
    job = answer["job_id"]
    assert f'get_job_logs(job_id="{job}", stream="stdout", offset={left_out["offset"]})' in text_of(result)
    head, _, tail = answer["stdout"].partition("\n[...")
    middle = await session.call(
        "get_job_logs", job_id=job, offset=left_out["offset"], limit=left_out["size_bytes"]
    )
    whole = head + middle.structured_content["text"] + tail.partition("...]\n")[2]
    assert whole == "".join(f"é {number}\n" for number in range(20_000))
    assert middle.structured_content["next_offset"] is not None
    await session.call("cancel_job", job_id=job)


def test_another_worker_is_no_result(url: str) -> None:
    async def main() -> None:
        async with in_process(url, verify_with=key_text(bytes(32))) as client:
            assert "receipt" in (await Session(client).refused("execute_bash", code="echo 1")).lower()

    anyio.run(main)


def test_sandrun_away() -> None:
    async def main() -> None:
        async with in_process(f"http://127.0.0.1:{free_port()}") as client:
            session = Session(client)
            for name, arguments in (
                ("execute_python", {"code": "1"}),
                ("check_job_status", {"job_id": "x"}),
            ):
                assert "cannot be reached" in await session.refused(name, **arguments)
            with pytest.raises(MCPError, match="cannot be reached"):
                await client.read_resource("sandrun://jobs/x/files/y")

    anyio.run(main)


def message(method: str, number: int | None = None, **params: Any) -> bytes:
    """A line of the protocol."""
    identity = {} if number is None else {"id": number}
    return json.dumps({"jsonrpc": "2.0", "method": method, **identity, "params": params}).encode() + b"\n"


OPENING = message(
    "initialize", 1, protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "t", "version": "1"}
) + message("notifications/initialized")


@pytest.mark.parametrize(("number", "status"), [(None, 0), (signal.SIGTERM, 143)])
def test_standard_output_is_the_protocol_and_the_end_leaves_nothing(
    service: Service, url: str, number: int | None, status: int
) -> None:
    """Each line is a message, from the first byte on; the end of the input, or a signal, cancels the job."""
    call = message(
        "tools/call",
        2,
        name="execute_python",
        arguments={"code": LASTS},
        _meta={"progressToken": "p"},
    )
    with started(url=url) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(OPENING + b"no message\n" + call)
        process.stdin.flush()
        lines = [json.loads(process.stdout.readline())]
        while lines[-1].get("params", {}).get("message") != "started":
            lines.append(json.loads(process.stdout.readline()))
        assert not no_job_is_left(service)
        if number is None:
            rest, errors = process.communicate(timeout=SECONDS)
        else:
            process.send_signal(number)
            assert process.wait(SECONDS) == status
            rest, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, errors) == (status, b"")
        lines += [json.loads(line) for line in rest.splitlines()]
    assert all(line["jsonrpc"] == "2.0" for line in lines)
    assert machine.eventually(lambda: no_job_is_left(service))


def test_a_client_that_stops_reading_is_gone(service: Service, url: str) -> None:
    """Its input is still open, and a job of it runs."""
    call = message(
        "tools/call", 2, name="execute_python", arguments={"code": LASTS}, _meta={"progressToken": "p"}
    )
    with started(url=url) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(OPENING + call)
        process.stdin.flush()
        while b"started" not in process.stdout.readline():
            pass
        process.stdout.close()
        process.stdin.write(message("ping", 3))
        process.stdin.flush()
        assert process.wait(SECONDS) == 141
        assert process.stderr.read() == b""
    assert machine.eventually(lambda: no_job_is_left(service))


def test_ctrl_c_ends_http_and_its_jobs(service: Service, url: str) -> None:
    async def main() -> None:
        with HttpServer(url) as server:
            running = anyio.Event()

            async def progress(_: float, __: float | None, text: str | None) -> None:
                if text == "started":
                    running.set()

            async def call() -> None:
                async with Client(server.url, mode="legacy") as client:
                    said = await client.call_tool(
                        "execute_python", {"code": LASTS}, progress_callback=progress
                    )
                    assert said.is_error
                    assert "stopping" in text_of(said)

            with anyio.fail_after(SECONDS):
                async with anyio.create_task_group() as group:
                    group.start_soon(call)
                    await running.wait()
                    assert await anyio.to_thread.run_sync(server.end) == (130, b"", b"")
            assert await eventually(lambda: no_job_is_left(service))

    anyio.run(main)


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_a_page_of_the_web_cannot_reach_it(http: HttpServer, version: str) -> None:
    """Whose name points to loopback (DNS rebinding), or that sends a request across."""
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": version,
    }
    for more, status in (
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ):
        for method in ("GET", "POST"):
            answer = httpx.request(method, http.url, headers={**headers, **more}, content=OPENING, timeout=60)
            assert answer.status_code == status
    large = httpx.post(http.url, headers=headers, content=b" " * (17 << 20), timeout=60)
    assert large.status_code == 413
