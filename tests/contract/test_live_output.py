"""Live output: what every reader gets, in which order, and after coming back."""

import asyncio
import json
import select
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import websockets

from sandrun_api.edge import protocols
from sandrun_shared.settings import Api, Executor, Quota, Settings
from support import programs
from support.fake_executor import CONNECTION_LOST, FakeExecutor
from support.live import Live, serving
from support.sse import Event, all_events, events

pytestmark = pytest.mark.anyio
TEXT = {"content-type": "text/plain"}
STREAM = {**TEXT, "accept": "text/event-stream"}
READERS = 200


@pytest.fixture
async def impatient(executor_socket: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """A server that soon loses patience with a reader, and shows often that it is alive."""
    monkeypatch.setattr(protocols, "LINGER_SECONDS", 0.05)
    settings = Settings(
        executor=Executor(socket=str(executor_socket)),
        quota=Quota(0, 0, 0, 0),
        api=Api(send_seconds=0.2, heartbeat_seconds=0.01),
    )
    async with serving(settings) as server:
        yield server


async def submit(live: Live, code: str) -> str:
    answer = await live.client.post(
        "/submit",
        files=[("files", ("main.py", code.encode()))],
        data={"manifest": '{"entrypoint": "main.py"}'},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


async def finish(live: Live, code: str) -> str:
    job_id = await submit(live, code)
    assert (await live.client.get(f"/status/{job_id}", params={"wait": 30})).json()["verdict"]
    return job_id


async def read(live: Live, job_id: str, **headers: str) -> list[Event]:
    async with live.client.stream("GET", f"/logs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return await all_events(answer)


def printed(outputs: list[Event], stream: str) -> str:
    return "".join(event.data["data"] for event in outputs if event.data["stream"] == stream)


async def test_events_are_the_output_and_then_the_end(live: Live) -> None:
    job_id = await submit(live, programs.FAILS.code)
    *outputs, last = await read(live, job_id)
    assert (printed(outputs, "stdout"), printed(outputs, "stderr")) == ("out\n", "err\n")
    assert {event.name for event in outputs} == {"message"}
    assert [event.id for event in outputs] == [event.data["sequence"] for event in outputs]
    assert (last.name, last.data["type"]) == ("finished", "finished")
    status = (await live.client.get(f"/status/{job_id}")).json()
    assert last.data == {"type": "finished", **status}


@pytest.mark.parametrize(
    "program", [programs.SPLIT, programs.BROKEN, programs.FAILS], ids=["split", "broken", "two"]
)
async def test_coming_back_loses_and_repeats_nothing(live: Live, program: programs.Program) -> None:
    job_id = await finish(live, program.code)
    whole = await read(live, job_id)
    for stream, number in (("stdout", 1), ("stderr", 2)):
        assert printed(whole[:-1], stream) == program.stream(number).decode(errors="replace")
    ids = [event.id for event in whole]
    assert ids == sorted(set(ids))
    for index, event in enumerate(whole[:-1], 1):
        rest = await read(live, job_id, **{"Last-Event-ID": str(event.id)})
        for stream in ("stdout", "stderr"):
            first = printed(whole[:index], stream)
            assert first + printed(rest[:-1], stream) == printed(whole[:-1], stream)
        assert (rest[-1].name, rest[-1].id) == ("finished", whole[-1].id)
        url = f"ws://127.0.0.1:{live.port}/stream/{job_id}?format=json&offset={event.id}"
        async with websockets.connect(url) as reader:
            assert [json.loads(message) async for message in reader] == [item.data for item in rest]
        logs = await live.client.get(f"/logs/{job_id}", params={"offset": event.id or 0})
        assert logs.status_code == 200


async def test_a_browser_that_has_the_end_is_told_to_stop(live: Live) -> None:
    job_id = await submit(live, programs.HELLO.code)
    last = (await read(live, job_id))[-1]
    answer = await live.client.get(f"/logs/{job_id}/events", headers={"Last-Event-ID": str(last.id)})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("after", ["10", "-1", "x", "1.0", "²", "9" * 5000])
async def test_a_sequence_that_nobody_was_given(live_fake: Live, after: str) -> None:
    job_id = await finish(live_fake, programs.HELLO.code)
    headers = {"Last-Event-ID": after.encode()}
    answer = await live_fake.client.get(f"/logs/{job_id}/events", headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["status"]) == (400, 400)
    url = httpx.URL(f"ws://127.0.0.1:{live_fake.port}/stream/{job_id}", params={"offset": after})
    async with websockets.connect(str(url)) as reader:
        await reader.wait_closed()
    assert reader.close_code == 4400


async def test_an_unknown_job(live_fake: Live) -> None:
    answer = await live_fake.client.get("/logs/nothing/events")
    assert (answer.status_code, answer.json()["status"]) == (404, 404)


async def test_a_deleted_job_has_no_end(impatient: Live) -> None:
    """Heartbeats while nothing happens; then the stream ends, and nothing says that the job did."""
    job_id = await submit(impatient, programs.WAITS.code)
    seen: list[str] = []
    async with impatient.client.stream("GET", f"/logs/{job_id}/events") as answer:
        async for event in events(answer):
            seen.append(event.name)
            if seen[-1] == ":" and "message" in seen:
                await impatient.client.delete(f"/jobs/{job_id}")
    assert ":" in seen[seen.index("message") :]
    assert "finished" not in seen


async def test_a_lost_job_ends_as_lost(live_fake: Live) -> None:
    last = (await read(live_fake, await submit(live_fake, CONNECTION_LOST)))[-1]
    assert (last.name, last.data["verdict"]) == ("finished", "executor_lost")


async def test_many_readers_of_one_job(live: Live) -> None:
    """They all get the same, and are all told when the job is gone."""
    job_id = await submit(live, programs.WAITS.code)
    async with AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{live.port}/stream/{job_id}"
        readers = [await stack.enter_async_context(websockets.connect(url)) for _ in range(READERS)]
        assert set(await asyncio.gather(*(reader.recv() for reader in readers))) == {"waiting\n"}
        await live.client.delete(f"/jobs/{job_id}")
        await asyncio.gather(*(reader.wait_closed() for reader in readers))
        assert {reader.close_code for reader in readers} == {4404}
    assert live.server.limiter.open <= 1  # the client that deleted


def slow_reader(port: int, head: str) -> socket.socket:
    """Asks, and reads nothing."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", port))
    reader.sendall(f"{head}\r\nHost: localhost\r\n\r\n".encode())
    return reader


UPGRADE = (
    "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
)


def wait_for_reset(reader: socket.socket, milliseconds: int) -> int:
    """poll(2)'s answer to a connection of which nothing is read."""
    poller = select.poll()
    poller.register(reader, 0)
    found = poller.poll(milliseconds)
    return found[0][1] if found else 0


@pytest.mark.parametrize(
    "head", ["GET /stream/{} HTTP/1.1" + UPGRADE, "GET /logs/{}/events HTTP/1.1"], ids=["websocket", "events"]
)
async def test_a_slow_reader_is_dropped_and_holds_nobody_up(
    impatient: Live, deadline: float, head: str
) -> None:
    job_id = await submit(impatient, programs.FLOOD.code)
    reader = await asyncio.to_thread(slow_reader, impatient.port, head.format(job_id))
    with reader:
        async with websockets.connect(f"ws://127.0.0.1:{impatient.port}/stream/{job_id}") as quick:
            size = sum([len(message) async for message in quick])
        assert size == len(programs.FLOOD.stream(1))
        assert quick.close_code == 1000
        found = await asyncio.to_thread(wait_for_reset, reader, int(1000 * deadline))
        assert found & select.POLLHUP


async def test_run_streams(live: Live) -> None:
    body = {"code": programs.FILES.code}
    async with live.client.stream(
        "POST", "/run", json=body, headers=STREAM | {"content-type": "application/json"}
    ) as answer:
        assert answer.status_code == 200
        *outputs, last = await all_events(answer)
    assert printed(outputs, "stdout") == "done\n"
    assert (last.name, last.data["verdict"], last.data["exit_code"]) == ("finished", "ok", 0)
    assert {file["path"] for file in last.data["files"]} == set(programs.FILES.files)
    assert last.data["job_id"] == answer.headers["sandrun-job-id"]
    assert (await live.client.get(f"/download/{last.data['job_id']}")).status_code == 200


async def test_run_that_left_nothing_is_forgotten(live: Live) -> None:
    async with live.client.stream("POST", "/run", content=programs.FAILS.code, headers=STREAM) as answer:
        *_, last = await all_events(answer)
    assert (last.data["verdict"], last.data["exit_code"]) == ("nonzero_exit", 3)
    assert (await live.client.get(f"/status/{last.data['job_id']}")).status_code == 404


async def test_hanging_up_on_a_run_that_streams_cancels(live_fake: Live, fake: FakeExecutor) -> None:
    async with live_fake.client.stream("POST", "/run", content=programs.WAITS.code, headers=STREAM) as answer:
        async for event in events(answer):
            if event.name == "message":
                break
    await fake.until(lambda: fake.hung_up == 1)
    assert (await live_fake.client.get(f"/status/{answer.headers['sandrun-job-id']}")).status_code == 404


async def test_a_server_that_stops_says_how_its_jobs_ended(
    fake: FakeExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(executor=Executor(socket=str(fake.path)), quota=Quota(0, 0, 0, 0))
    seen: list[Event] = []
    first = asyncio.Event()

    async def follow(url: str) -> None:
        async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", url) as answer:
            async for event in events(answer):
                seen.append(event)
                first.set()

    async with serving(settings) as live:
        job_id = await submit(live, programs.WAITS.code)
        following = asyncio.create_task(follow(f"http://127.0.0.1:{live.port}/logs/{job_id}/events"))
        await first.wait()
    await following
    assert (seen[-1].name, seen[-1].data["verdict"]) == ("finished", "cancelled")
    assert caplog.text == ""


@pytest.mark.parametrize("buffered", [None, True, False])
async def test_whether_output_may_wait_is_the_clients_choice(
    live_fake: Live, fake: FakeExecutor, buffered: bool | None
) -> None:
    choice = {} if buffered is None else {"buffered": buffered}
    ran = await live_fake.client.post("/run", json={"code": "print(1)", **choice})
    submitted = await live_fake.client.post(
        "/submit",
        files=[("files", ("main.py", b"print(1)"))],
        data={"manifest": json.dumps({"entrypoint": "main.py", **choice})},
    )
    assert (ran.status_code, submitted.status_code) == (200, 200)
    await fake.until(lambda: len(fake.executed) == 2)
    assert [request.buffered for request in fake.executed] == [buffered, buffered]
