"""Quotas over HTTP: what a client is told, and that it is true. The clock is the test's."""

import asyncio
import io
import json
import tarfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from sandrun_api.admission.threads import THREADS_PER_CLIENT
from sandrun_api.uploads import archives
from sandrun_api.uploads.contents import Bounds, Contents
from sandrun_shared.jobs import UploadKind
from sandrun_shared.memfds import Memfd
from sandrun_shared.settings import Api, Executor, JobLimits, Quota, Settings
from support import programs
from support.clocks import FakeClock
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
TEXT = {"content-type": "text/plain"}
BURNS = """
import os, time
child = os.fork()
while time.process_time() < 0.3: pass
if child: os.wait()
"""


@asynccontextmanager
async def limited(path: Path, clock: FakeClock, quota: Quota, **api: object) -> AsyncIterator[Live]:
    settings = Settings(executor=Executor(socket=str(path)), quota=quota, api=Api(**api))  # type: ignore[arg-type]
    async with serving(settings, now=clock) as live:
        yield live


async def submit(live: Live, code: str = "pass", **headers: str) -> httpx.Response:
    return await live.client.post(
        "/submit",
        files=[("files", ("main.py", code.encode()))],
        data={"manifest": '{"entrypoint": "main.py"}'},
        headers=headers,
    )


async def run(live: Live, code: str = programs.HELLO.code, **headers: str) -> httpx.Response:
    return await live.client.post("/run", content=code, headers={**TEXT, **headers})


async def quota_of(live: Live, **headers: str) -> dict[str, object]:
    return (await live.client.get("/stats", headers=headers)).json()["your_quota"]


def check_429(answer: httpx.Response) -> int:
    body = answer.json()
    assert (answer.status_code, body["status"], body["error"]) == (429, 429, "Rate limit exceeded")
    assert body["reason"] == body["detail"]
    assert body["retry_after"] == int(answer.headers["retry-after"])
    assert "ratelimit" in answer.headers
    assert "ratelimit-policy" in answer.headers
    return int(body["retry_after"])


async def test_every_way_to_run_a_job_is_a_submission(fake: FakeExecutor) -> None:
    clock = FakeClock()
    async with limited(fake.path, clock, Quota(jobs_per_hour=3)) as live:
        assert (await run(live)).status_code == 200
        clock.advance(100)
        taken = await submit(live)
        assert taken.headers["ratelimit-policy"] == (
            '"cpu";q=10;qu="cpu-seconds";w=60, "jobs";q=3;w=3600, "queue";q=10;qu="concurrent-requests"'
        )
        assert '"jobs";r=1' in taken.headers["ratelimit"]
        assert (await live.client.post("/run", json={"code": "pass"})).status_code == 200
        for refused in (await submit(live), await run(live)):
            assert check_429(refused) == 3500
            assert refused.json()["reason"] == "Hourly quota exhausted (3/3 jobs submitted in the last hour)"
            assert '"jobs";r=0;t=3500' in refused.headers["ratelimit"]
        stats = await quota_of(live)
        assert (stats["jobs_this_hour"], stats["can_submit"], stats["retry_after"]) == (3, False, 3500)
        clock.advance(3499)
        assert (await submit(live)).status_code == 429
        clock.advance(1)
        assert (await submit(live)).status_code == 200


async def test_what_was_refused_is_no_submission(fake: FakeExecutor) -> None:
    async with limited(fake.path, FakeClock(), Quota(jobs_per_hour=1)) as live:
        assert (await live.client.post("/run", json={"code": 1})).status_code == 400
        assert (await live.client.post("/submit", content=b"x")).status_code == 415
        assert (await quota_of(live))["jobs_this_hour"] == 0


async def test_a_retry_under_the_same_key_is_answered_whatever_is_used_up(fake: FakeExecutor) -> None:
    async with limited(fake.path, FakeClock(), Quota(jobs_per_hour=1)) as live:
        first = await submit(live, **{"idempotency-key": "k"})
        again = await submit(live, **{"idempotency-key": "k"})
        assert first.json()["job_id"] == again.json()["job_id"]
        assert (await submit(live, **{"idempotency-key": "other"})).status_code == 429
        await live.client.delete(f"/jobs/{first.json()['job_id']}")
        assert (await submit(live, **{"idempotency-key": "k"})).status_code == 429  # forgotten with its job


async def test_cpu_of_real_processes_is_counted(
    executor_socket: Path, request: pytest.FixtureRequest
) -> None:
    clock = FakeClock()
    async with limited(executor_socket, clock, Quota(cpu_seconds_per_minute=0.005)) as live:
        answer = await live.client.post("/run", json={"code": BURNS})
        used = answer.json()["metrics"]["cpu_seconds"]
        stats = await quota_of(live)
        assert stats == {
            "used": used,
            "limit": 0.005,
            "available": 0,
            "active_jobs": 0,
            "max_concurrent_jobs": 2,
            "queued_jobs": 0,
            "max_queued_jobs": 10,
            "jobs_this_hour": 1,
            "max_jobs_per_hour": 20,
            "can_submit": False,
            "reason": f"CPU quota exhausted ({used:.1f}/0.0 seconds used)",
            "retry_after": 60,
        }
        if request.node.callspec.params["executor_socket"] == "real":
            assert used > 0.6  # of both processes
        assert check_429(await run(live)) == 60
        clock.advance(59)
        assert check_429(await run(live)) == 1
        clock.advance(1)
        assert (await run(live)).status_code == 200


def archive(members: int) -> bytes:
    """A tar.gz of empty files, which is read for a while."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for number in range(members):
            tar.addfile(tarfile.TarInfo(f"f{number}"))
    return packed.getvalue()


async def upload(live: Live, data: bytes, entrypoint: str, **headers: str) -> httpx.Response:
    return await live.client.post(
        "/submit",
        files=[("files", ("a.tar.gz", data))],
        data={"manifest": json.dumps({"entrypoint": entrypoint})},
        headers=headers,
    )


async def test_the_check_of_an_upload_is_paid_for_though_it_is_refused(fake: FakeExecutor) -> None:
    clock, quota = FakeClock(), Quota(cpu_seconds_per_minute=0.001)
    async with limited(fake.path, clock, quota, trusted_proxies="127.0.0.0/8") as live:
        for address, entrypoint, code in (("198.51.100.1", "none.py", 400), ("198.51.100.2", "f1", 400)):
            refused = await upload(live, archive(500), entrypoint, **{"x-forwarded-for": address})
            assert refused.status_code == code, refused.text
            stats = await quota_of(live, **{"x-forwarded-for": address})
            assert stats["used"] > 0.001  # type: ignore[operator]
            assert stats["jobs_this_hour"] == 0
            assert check_429(await run(live, **{"x-forwarded-for": address})) == 60
        assert (await quota_of(live, **{"x-forwarded-for": "198.51.100.3"}))["used"] == 0
        clock.advance(60)
        assert (await run(live, **{"x-forwarded-for": "198.51.100.1"})).status_code == 200


async def test_the_making_of_an_archive_is_paid_for(fake: FakeExecutor) -> None:
    async with limited(fake.path, FakeClock(), Quota(cpu_seconds_per_minute=10.0)) as live:
        taken = await submit(live, programs.LARGE.code)
        await live.client.get(taken.headers["location"], params={"wait": 30})
        before = (await quota_of(live))["used"]
        assert (await live.client.get(f"/download/{taken.json()['job_id']}")).status_code == 200
        assert (await quota_of(live))["used"] > before  # type: ignore[operator]


async def test_other_clients_are_served_while_uploads_of_one_are_checked(
    fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, check = threading.Event(), archives.check

    def slow(upload: Memfd, kind: UploadKind, bounds: Bounds) -> Contents:
        if upload.size > 1000:
            assert let_go.wait(30)
        return check(upload, kind, bounds)

    monkeypatch.setattr(archives, "check", slow)
    async with limited(fake.path, FakeClock(), Quota(), trusted_proxies="127.0.0.0/8") as live:
        large = archive(1000)
        greedy = [
            asyncio.create_task(upload(live, large, "none.py", **{"x-forwarded-for": "198.51.100.1"}))
            for _ in range(8)
        ]
        pool = live.server.config.app.state.service.threads
        async with asyncio.timeout(30):
            while pool.waiting < 8 - THREADS_PER_CLIENT:  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0)
        other = await upload(live, archive(3), "f1", **{"x-forwarded-for": "198.51.100.2"})
        assert other.status_code == 400  # which interpreter is to run it, nobody said: it was looked at
        let_go.set()
        assert {answer.status_code for answer in await asyncio.gather(*greedy)} == {400}


async def test_the_third_job_waits_with_its_position(fake: FakeExecutor) -> None:
    async with limited(fake.path, FakeClock(), Quota()) as live:
        answers = [await submit(live, programs.WAITS.code) for _ in range(4)]
        await fake.until(lambda: fake.running == 2)
        assert [answer.json()["queue_position"] for answer in answers] == [0, 0, 1, 2]
        status = (await live.client.get(answers[3].headers["location"])).json()
        assert (status["status"], status["queue_position"]) == ("queued", 2)
        stats = await quota_of(live)
        assert (stats["active_jobs"], stats["queued_jobs"]) == (2, 2)


async def test_a_refusal_does_not_wait_for_the_body(fake: FakeExecutor, deadline: float) -> None:
    async with limited(fake.path, FakeClock(), Quota(jobs_per_hour=1)) as live:
        assert (await run(live)).status_code == 200
        for path, kind in (("/submit", "multipart/form-data; boundary=x"), ("/run", "text/plain")):
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: 100000000\r\n\r\n"
            writer.write(head.encode() + b"#" * 1000)
            async with asyncio.timeout(deadline):
                answer = await reader.readuntil(b"\r\n\r\n")
                length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"connection: close" in answer.lower()
            assert body["retry_after"] == 3600
            # What comes on is dropped, up to a bound; then the connection ends.
            async with asyncio.timeout(deadline):
                try:
                    while True:
                        writer.write(b"#" * 65536)
                        await writer.drain()
                except ConnectionError:
                    pass
            writer.close()


async def test_a_client_that_asked_first_sends_nothing(fake: FakeExecutor, deadline: float) -> None:
    async with limited(fake.path, FakeClock(), Quota(jobs_per_hour=1)) as live:
        assert (await run(live)).status_code == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(
            b"POST /run HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n"
            b"expect: 100-continue\r\n\r\n"
        )
        async with asyncio.timeout(deadline):
            answer = await reader.read()  # to its end: the server closes at once
        assert answer.startswith(b"HTTP/1.1 429 ")
        writer.close()


async def test_a_large_upload_meets_its_429(fake: FakeExecutor) -> None:
    """More than the kernel's buffers hold: it is answered because it is read, not because it was faster."""
    async with limited(fake.path, FakeClock(), Quota(jobs_per_hour=1)) as live:
        assert (await run(live)).status_code == 200
        assert check_429(await submit(live, "#" * (12 << 20))) == 3600


async def test_clients_behind_a_trusted_proxy_have_their_own_quotas(fake: FakeExecutor) -> None:
    quota = Quota(jobs_per_hour=1)
    async with limited(fake.path, FakeClock(), quota, trusted_proxies="127.0.0.0/8") as live:
        for address in ("198.51.100.1", "198.51.100.2", "2001:db8::1"):
            assert (await run(live, **{"x-forwarded-for": f"203.0.113.9, {address}"})).status_code == 200
        for address in ("198.51.100.1", "1.2.3.4, 198.51.100.2", "2001:db8::2", "::ffff:198.51.100.1"):
            assert (await run(live, **{"x-forwarded-for": address})).status_code == 429
        assert (await quota_of(live, **{"x-forwarded-for": "nonsense"}))["jobs_this_hour"] == 0


async def test_nobody_else_is_believed(fake: FakeExecutor) -> None:
    async with limited(fake.path, FakeClock(), Quota(jobs_per_hour=1)) as live:
        assert (await run(live, **{"x-forwarded-for": "198.51.100.1"})).status_code == 200
        assert (await run(live, **{"x-forwarded-for": "198.51.100.2"})).status_code == 429


async def test_nothing_can_be_evicted(fake: FakeExecutor) -> None:
    settings = Settings(executor=Executor(socket=str(fake.path)), limits=JobLimits(memory_budget_mb=16))
    async with serving(settings) as live:
        waiting = "waits = 1\n" + "#" * (7 << 20)
        jobs = [await submit(live, programs.WAITS.code) for _ in range(2)]
        await fake.until(lambda: fake.running == 2)
        jobs += [await submit(live, waiting), await submit(live, waiting)]
        refused = await submit(live, waiting)
        assert (refused.status_code, refused.json()["retry_after"]) == (
            503,
            int(refused.headers["retry-after"]),
        )
        assert {job.status_code for job in jobs} == {200}
        for job in jobs[2:]:  # none of those that were taken went for it
            assert (await live.client.get(job.headers["location"])).json()["status"] == "queued"
