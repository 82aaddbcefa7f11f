"""A server that was told to stop: no new jobs, the others end, their results can still be fetched."""

import asyncio
import signal

import httpx
import pytest

from sandrun_api import server
from sandrun_api.jobs import drain
from sandrun_api.jobs.service import JobService
from sandrun_shared.settings import Api, Executor, Settings
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio


async def submit(live: Live, code: str) -> httpx.Response:
    return await live.client.post(
        "/submit",
        files=[("files", ("main.py", code.encode()))],
        data={"manifest": '{"entrypoint": "main.py"}'},
    )


def service_of(live: Live) -> JobService:
    service: JobService = live.server.config.app.state.service  # type: ignore[union-attr]
    return service


async def until_draining(live: Live) -> None:
    while not service_of(live).draining:
        await live.client.get("/")


async def test_sigterm_refuses_new_jobs_and_serves_the_others(live_fake: Live, fake: FakeExecutor) -> None:
    running = (await submit(live_fake, programs.WAITS.code)).headers["location"]
    await fake.until(lambda: fake.running == 1)
    live_fake.server.handle_exit(signal.SIGTERM, None)
    await until_draining(live_fake)
    refused = await submit(live_fake, programs.HELLO.code)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) == refused.json()["retry_after"]
    assert (await live_fake.client.get("/health")).status_code == 503
    status = await live_fake.client.get(running)
    assert status.json()["status"] == "running"
    assert not live_fake.server.should_exit
    live_fake.server._captured_signals.clear()  # else the server ends this process as it was ended


async def test_a_second_sigterm_and_sigint_stop_at_once(live_fake: Live, fake: FakeExecutor) -> None:
    await submit(live_fake, programs.WAITS.code)
    await fake.until(lambda: fake.running == 1)
    live_fake.server.handle_exit(signal.SIGTERM, None)
    await until_draining(live_fake)
    live_fake.server.handle_exit(signal.SIGTERM, None)
    assert live_fake.server.should_exit
    live_fake.server._captured_signals.clear()


async def test_sigint_drains_nothing(live_fake: Live) -> None:
    live_fake.server.handle_exit(signal.SIGINT, None)
    assert live_fake.server.should_exit
    assert not service_of(live_fake).draining
    live_fake.server._captured_signals.clear()


async def test_it_waits_for_the_jobs_and_for_their_results_to_be_fetched(
    live_fake: Live, fake: FakeExecutor
) -> None:
    location = (await submit(live_fake, programs.WAITS.code)).headers["location"]
    await fake.until(lambda: fake.running == 1)
    draining = asyncio.create_task(drain.drain(service_of(live_fake), 3600.0))
    await until_draining(live_fake)
    assert not draining.done()
    await fake.stop()  # the job ends, as lost
    ended = await live_fake.client.get(location, params={"wait": 30})
    assert ended.json()["verdict"] == "executor_lost"
    assert not draining.done()
    for job in service_of(live_fake).store:
        service_of(live_fake).delete(job)
    await draining


async def test_it_does_not_wait_for_ever(live_fake: Live, fake: FakeExecutor) -> None:
    await submit(live_fake, programs.WAITS.code)
    await fake.until(lambda: fake.running == 1)
    await drain.drain(service_of(live_fake), 0.001)
    assert fake.running == 1


async def test_results_that_nobody_fetches_hold_nothing_up(
    live_fake: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = (await submit(live_fake, programs.HELLO.code)).headers["location"]
    await live_fake.client.get(location, params={"wait": 30})
    monkeypatch.setattr(drain, "FETCH_SECONDS", 0.0)
    await drain.drain(service_of(live_fake), 3600.0)
    assert len(service_of(live_fake).store) == 1


async def test_who_connected_just_before_the_end_is_answered(
    live_fake: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FIRST_REQUEST_SECONDS", 60.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", live_fake.port)
    while not any(connection.cycle is None for connection in live_fake.server.server_state.connections):
        await live_fake.client.get("/")
    live_fake.server.should_exit = True
    while live_fake.server.servers[0].is_serving():  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0)
    writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()


async def test_a_server_without_patience_stops_at_once(fake: FakeExecutor) -> None:
    settings = Settings(api=Api(drain_seconds=0), executor=Executor(socket=str(fake.path)))
    async with serving(settings) as live:
        await submit(live, programs.WAITS.code)
        await fake.until(lambda: fake.running == 1)
        await drain.drain(service_of(live), 0)
        assert fake.running == 1
