"""Whatever is cut is said to be cut, in every answer that carries output and at the end of every stream."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import websockets
from nacl.public import PrivateKey

from sandrun_shared.jobs import LeftOut, LeftOutReason
from sandrun_shared.keys import text_of
from sandrun_shared.settings import Executor, JobLimits, Quota, Settings
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live, serving
from support.sse import all_events

pytestmark = pytest.mark.anyio
TEXT = {"content-type": "text/plain"}
KEPT = 1 << 20
MISSING = {"stdout": len(programs.FLOOD.stream(1)) - KEPT, "stderr": 0}
HEADER = f"stdout={MISSING['stdout']}"


def settings_for(path: Path, limits: JobLimits) -> Settings:
    quota = Quota(cpu_seconds_per_minute=0, concurrent_jobs=0, jobs_per_hour=0, queued_jobs=0)
    return Settings(executor=Executor(socket=str(path)), quota=quota, limits=limits)


@pytest.fixture
def settings_of() -> Callable[[Path], Settings]:
    """A mebibyte of output is kept, of the eight that the program prints."""
    return lambda path: settings_for(path, JobLimits(log_mb=1))


async def finished(live: Live, program: programs.Program, **manifest: object) -> dict[str, object]:
    answer = await live.client.post(
        "/submit",
        files=[("files", ("main.py", program.code.encode()))],
        data={"manifest": json.dumps({"entrypoint": "main.py", **manifest})},
    )
    assert answer.status_code == 200, answer.text
    return (await live.client.get(answer.headers["location"], params={"wait": 30})).json()


async def test_every_document_and_every_text_says_so(live: Live) -> None:
    status = await finished(live, programs.FLOOD)
    assert (status["truncated"], status["missing_bytes"]) == (True, MISSING)
    path = f"/logs/{status['job_id']}"
    logs = (await live.client.get(path)).json()
    assert (logs["truncated"], logs["missing_bytes"]) == (True, MISSING)
    assert len(logs["stdout"]) == KEPT
    text = await live.client.get(path, headers={"accept": "text/plain"})
    assert (len(text.content), text.headers["sandrun-truncated"]) == (KEPT, HEADER)
    run = (await live.client.post("/run", json={"code": programs.FLOOD.code})).json()
    assert (run["truncated"], run["missing_bytes"]) == (True, MISSING)
    run_text = await live.client.post("/run", content=programs.FLOOD.code, headers=TEXT)
    assert run_text.headers["sandrun-truncated"] == HEADER
    head = await live.client.head(path, headers={"accept": "text/plain"})
    assert head.headers["sandrun-truncated"] == HEADER


async def test_the_end_of_every_stream_says_so(live: Live, deadline: float) -> None:
    job_id = (await finished(live, programs.FLOOD))["job_id"]
    async with live.client.stream("GET", f"/logs/{job_id}/events") as answer:
        last = (await all_events(answer))[-1]
    assert (last.data["truncated"], last.data["missing_bytes"]) == (True, MISSING)
    async with live.client.stream(
        "POST", "/run", json={"code": programs.FLOOD.code}, headers={"accept": "text/event-stream"}
    ) as answer:
        last = (await all_events(answer))[-1]
    assert (last.data["truncated"], last.data["missing_bytes"]) == (True, MISSING)
    url = f"ws://127.0.0.1:{live.port}/stream/{job_id}"
    async with asyncio.timeout(deadline), websockets.connect(f"{url}?format=json", proxy=None) as socket:
        *_, end = [json.loads(message) async for message in socket]
    assert (end["truncated"], end["missing_bytes"]) == (True, MISSING)
    async with asyncio.timeout(deadline), websockets.connect(url, proxy=None) as socket:
        assert sum([len(message) async for message in socket]) == KEPT
        assert (socket.close_code, socket.close_reason) == (1000, f"truncated: {HEADER}")


async def test_what_is_whole_says_nothing(live: Live, deadline: float) -> None:
    status = await finished(live, programs.FAILS)
    assert (status["truncated"], status["missing_bytes"]) == (False, {"stdout": 0, "stderr": 0})
    text = await live.client.get(f"/logs/{status['job_id']}", headers={"accept": "text/plain"})
    archive = await live.client.get(f"/download/{status['job_id']}")
    run_text = await live.client.post("/run", content=programs.HELLO.code, headers=TEXT)
    for answer in (text, archive, run_text):
        assert answer.status_code == 200
        assert "sandrun-truncated" not in answer.headers
    job_id = (await finished(live, programs.HELLO))["job_id"]
    url = f"ws://127.0.0.1:{live.port}/stream/{job_id}"
    async with asyncio.timeout(deadline), websockets.connect(url, proxy=None) as socket:
        assert [message async for message in socket] == ["hello\n"]
        assert (socket.close_code, socket.close_reason) == (1000, "")


async def test_of_sealed_output_only_its_key_can_tell_how_much(live_fake: Live) -> None:
    key = text_of(bytes(PrivateKey.generate().public_key))
    status = await finished(live_fake, programs.FLOOD, encrypt_to=key)
    assert (status["truncated"], status["missing_bytes"]) == (True, None)
    text = await live_fake.client.get(f"/logs/{status['job_id']}", headers={"accept": "text/plain"})
    assert text.headers["sandrun-truncated"] == "output"


async def test_an_archive_says_what_it_lacks(fake: FakeExecutor) -> None:
    fake.left_out = (LeftOut(LeftOutReason.too_large, 2), LeftOut(LeftOutReason.too_deep))
    async with serving(settings_for(fake.path, JobLimits())) as live:
        status = await finished(live, programs.FILES)
        assert (await live.client.get(f"/outputs/{status['job_id']}")).json()["truncated"]
        archive = await live.client.get(f"/download/{status['job_id']}")
    assert archive.headers["sandrun-truncated"] == "files=3"


async def test_images_without_room_are_counted(fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandrun_shared.images.MAX_BYTES", 100)
    pictures = programs.Program("# two pictures\n", files={"a.png": b"x" * 80, "b.png": b"y" * 80})
    monkeypatch.setattr("support.fake_executor.ALL", [pictures])
    async with serving(settings_for(fake.path, JobLimits())) as live:
        run = (await live.client.post("/run", json={"code": pictures.code})).json()
    assert ([image["path"] for image in run["images"]], run["images_left_out"]) == (["a.png"], 1)


async def test_who_waited_is_told_when_the_job_is_forgotten(live: Live) -> None:
    submitted: httpx.Response = await live.client.post(
        "/submit",
        files=[("files", ("main.py", programs.FILES.code.encode()))],
        data={"manifest": '{"entrypoint": "main.py"}'},
    )
    job_id = submitted.json()["job_id"]
    waited, streamed = await asyncio.gather(
        live.client.get(f"/status/{job_id}", params={"wait": 30}),
        live.client.get(f"/logs/{job_id}/events"),
    )
    kept = (await live.client.get(f"/status/{job_id}")).json()["expires_at"]
    assert kept is not None
    assert waited.json()["expires_at"] == kept
    assert f'"expires_at":"{kept}"' in streamed.text
    run = (await live.client.post("/run", json={"code": programs.FILES.code})).json()
    assert run["expires_at"] is not None
    run = (await live.client.post("/run", json={"code": programs.HELLO.code})).json()
    assert run["expires_at"] is None
