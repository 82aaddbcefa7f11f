"""What a client sees, whichever executor is behind the api."""

import asyncio
import base64
import hashlib
import io
import json
import tarfile
import zipfile

import httpx
import pytest
import websockets

from support import programs
from support.live import Live

pytestmark = pytest.mark.anyio


async def submit(
    live: Live, program: programs.Program, headers: dict[str, str] | None = None, **manifest: object
) -> httpx.Response:
    return await live.client.post(
        "/submit",
        files=[("files", ("main.py", program.code.encode()))],
        data={"manifest": json.dumps({"entrypoint": "main.py", **manifest})},
        headers=headers,
    )


async def finished(live: Live, response: httpx.Response) -> dict[str, object]:
    assert response.status_code == 200, response.text
    status = await live.client.get(response.headers["location"], params={"wait": 30})
    assert status.status_code == 200
    return status.json()


async def test_submit_runs_and_says_how_it_ended(live: Live) -> None:
    response = await submit(live, programs.HELLO)
    assert response.json()["status"] == "queued"
    assert response.json()["queue_position"] == 0
    status = await finished(live, response)
    assert (status["status"], status["verdict"], status["exit_code"]) == ("completed", "ok", 0)
    assert status["execution_metadata"]["interpreter"] == "python3"
    logs = (await live.client.get(f"/logs/{status['job_id']}")).json()
    assert logs == {
        "stdout": "hello\n",
        "stderr": "",
        "encoding": "utf-8",
        "stdout_bytes": 6,
        "stderr_bytes": 0,
        "truncated": False,
        "missing_bytes": {"stdout": 0, "stderr": 0},
        "next_offset": 6,
    }


async def test_a_failing_program_is_a_result(live: Live) -> None:
    status = await finished(live, await submit(live, programs.FAILS))
    assert (status["status"], status["verdict"], status["exit_code"]) == ("failed", "nonzero_exit", 3)
    logs = (await live.client.get(f"/logs/{status['job_id']}")).json()
    assert (logs["stdout"], logs["stderr"]) == ("out\n", "err\n")


async def test_bytes_that_are_not_text_survive(live: Live) -> None:
    status = await finished(live, await submit(live, programs.BINARY))
    logs = (await live.client.get(f"/logs/{status['job_id']}")).json()
    assert logs["encoding"] == "base64"
    assert base64.b64decode(logs["stdout"]) == programs.BINARY.stream(1)
    text = await live.client.get(f"/logs/{status['job_id']}", headers={"accept": "text/plain"})
    assert text.content == programs.BINARY.stream(1)


async def test_run_text(live: Live) -> None:
    answer = await live.client.post(
        "/run", content=programs.HELLO.code, headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 200
    assert answer.content == b"hello\n"
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["sandrun-exit-code"] == "0"
    assert answer.headers["sandrun-verdict"] == "ok"
    gone = await live.client.get(f"/status/{answer.headers['sandrun-job-id']}")
    assert gone.status_code == 404


async def test_run_json(live: Live) -> None:
    answer = await live.client.post("/run", json={"code": programs.FAILS.code})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["stdout"], body["stderr"], body["exit_code"]) == ("out\n", "err\n", 3)
    assert (body["status"], body["verdict"], body["files"]) == ("failed", "nonzero_exit", [])


async def test_arguments_environment_and_stdin_arrive(live: Live) -> None:
    body = {"code": programs.ARGUMENTS.code, "args": ["a", "b c"], "env": {"NAME": "value"}, "stdin": "typed"}
    answer = await live.client.post("/run", json=body)
    assert answer.json()["stdout"].encode() == programs.ARGUMENTS.stream(1)


async def test_outputs_are_listed_downloaded_and_then_gone(live: Live) -> None:
    status = await finished(live, await submit(live, programs.FILES))
    job_id = status["job_id"]
    listed = (await live.client.get(f"/outputs/{job_id}")).json()
    assert sorted(listed["files"]) == sorted(programs.FILES.files)
    assert sorted(status["output_files"]) == sorted(programs.FILES.files)
    for detail in listed["details"]:
        content = programs.FILES.files[detail["path"]]
        assert detail["sha256"] == hashlib.sha256(content).hexdigest()
        one = await live.client.get(detail["download_url"])
        assert one.content == content
        assert one.headers["etag"] == f'"{detail["sha256"]}"'
        assert one.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in one.headers["content-security-policy"]
        alias = await live.client.get(detail["download_url"].replace("/download/", "/outputs/"))
        assert alias.content == content
    part = await live.client.get(f"/download/{job_id}/results/data.csv", headers={"range": "bytes=2-3"})
    assert (part.status_code, part.content) == (206, b"b\n")
    assert part.headers["content-range"] == "bytes 2-3/8"
    beyond = await live.client.get(f"/download/{job_id}/results/data.csv", headers={"range": "bytes=99-"})
    assert beyond.status_code == 416
    same = await live.client.get(
        f"/download/{job_id}/results/data.csv", headers={"if-none-match": part.headers["etag"]}
    )
    assert same.status_code == 304
    packed = await live.client.get(f"/download/{job_id}")
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == programs.FILES.files
    assert (await live.client.get(f"/status/{job_id}")).status_code == 404


@pytest.mark.parametrize("path", ["/logs/{}/stream", "/stream/{}"])
async def test_live_output_is_the_output_itself(live: Live, path: str) -> None:
    job_id = (await submit(live, programs.SPLIT)).json()["job_id"]
    async with websockets.connect(f"ws://127.0.0.1:{live.port}{path.format(job_id)}") as stream:
        text = "".join([str(message) async for message in stream])
    assert text == "né€😀"
    assert stream.close_code == 1000


async def test_live_output_as_json_ends_with_the_status(live: Live) -> None:
    job_id = (await submit(live, programs.FAILS)).json()["job_id"]
    async with websockets.connect(f"ws://127.0.0.1:{live.port}/stream/{job_id}?format=json") as stream:
        messages = [json.loads(message) async for message in stream]
    *outputs, last = messages
    assert {item["stream"]: item["data"] for item in outputs} == {"stdout": "out\n", "stderr": "err\n"}
    assert [item["sequence"] for item in outputs] == sorted({item["sequence"] for item in outputs})
    assert (last["type"], last["status"], last["exit_code"]) == ("finished", "failed", 3)


async def test_live_output_of_an_unknown_job(live: Live) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{live.port}/logs/nothing/stream") as stream:
        await stream.wait_closed()
    assert stream.close_code == 4404


async def test_deleting_cancels_and_forgets(live: Live) -> None:
    job_id = (await submit(live, programs.WAITS)).json()["job_id"]
    async with websockets.connect(f"ws://127.0.0.1:{live.port}/stream/{job_id}") as stream:
        assert await stream.recv() == "waiting\n"
        assert (await live.client.get(f"/outputs/{job_id}")).status_code == 409
        assert (await live.client.delete(f"/jobs/{job_id}")).status_code == 204
        await stream.wait_closed()
    for path in (f"/status/{job_id}", f"/logs/{job_id}", f"/outputs/{job_id}", f"/download/{job_id}"):
        assert (await live.client.get(path)).status_code == 404
    assert (await live.client.delete(f"/jobs/{job_id}")).status_code == 404


async def test_a_zip_with_its_own_manifest(live: Live) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("job.json", '{"entrypoint": "main.py"}')
        archive.writestr("main.py", "pass\n")
    response = await live.client.post("/submit", files={"files": ("job.zip", packed.getvalue())})
    assert (await finished(live, response))["verdict"] == "ok"


async def test_interpreter_that_is_not_installed(live: Live) -> None:
    answer = await live.client.post(
        "/run?interpreter=cobol", content="x", headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 400
    assert "not installed" in answer.json()["reason"]


async def test_many_at_once(live: Live) -> None:
    answers = await asyncio.gather(
        *(
            live.client.post("/run", content=programs.HELLO.code, headers={"content-type": "text/plain"})
            for _ in range(20)
        )
    )
    assert {answer.content for answer in answers} == {b"hello\n"}


async def test_what_cannot_run_here_is_refused_with_the_reason(live: Live) -> None:
    answer = await live.client.post("/run", json={"code": "1", "interpreter": "zebra"})
    assert answer.status_code == 400
    assert "'zebra' is not installed" in answer.json()["reason"]
    answer = await live.client.post(
        "/submit",
        files={"files": ("tool", b"\x7fELF\x01" + bytes(99)), "manifest": (None, '{"entrypoint": "tool"}')},
    )
    assert answer.status_code == 400
    assert "executable" in answer.json()["reason"]


async def test_health_environments_and_server(live: Live) -> None:
    assert (await live.client.get("/health")).json()["status"] == "healthy"
    server = (await live.client.get("/")).json()
    assert "python3" in server["interpreters"]
    assert list(server["interpreter_versions"]) == server["interpreters"]
    assert server["interpreter_versions"]["python3"]
    environments = (await live.client.get("/environments")).json()
    assert "default" in environments["templates"]
    assert environments["details"][0]["interpreter_versions"]["python3"]
    assert (await live.client.get("/stats")).json()["system"]["queue_length"] == 0
