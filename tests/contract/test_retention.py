"""How long a job is kept: a download that arrived ends it, one that broke does not, and time does."""

import asyncio
import io
import os
import socket
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from sandrun_shared.settings import Api, Executor, JobLimits, Settings
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def kept(path: Path, limits: JobLimits | None = None, **api: object) -> AsyncIterator[Live]:
    settings = Settings(
        executor=Executor(socket=str(path)),
        limits=limits or JobLimits(),
        api=Api(**api),  # type: ignore[arg-type]
    )
    async with serving(settings) as live:
        yield live


async def ended(live: Live, code: str) -> dict[str, object]:
    answer = await live.client.post(
        "/submit",
        files=[("files", ("main.py", code.encode()))],
        data={"manifest": '{"entrypoint": "main.py"}'},
    )
    assert answer.status_code == 200, answer.text
    return (await live.client.get(answer.headers["location"], params={"wait": 30})).json()


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the server is in this loop, and has no event for it
            await asyncio.sleep(0)


async def begin(live: Live, path: str) -> socket.socket:
    """Ask for something through a small window, and read the first of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", live.port))
    await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    assert (await loop.sock_recv(sock, 100)).startswith(b"HTTP/1.1 200 ")
    return sock


def memfds() -> int:
    """How many this process has open."""
    return sum("/memfd:" in _target(name) for name in os.listdir("/proc/self/fd"))


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""


async def test_a_broken_download_keeps_the_job(live: Live, deadline: float) -> None:
    job_id = (await ended(live, programs.LARGE.code))["job_id"]
    service = live.server.config.app.state.service
    job = service.store.get(job_id)
    for _ in range(2):
        sock = await begin(live, f"/download/{job_id}")
        assert job.is_read
        sock.close()  # with bytes unread: a reset
        await until(lambda: not job.is_read, deadline)
        assert (await live.client.get(f"/status/{job_id}")).json()["status"] == "completed"
    whole = await live.client.get(f"/download/{job_id}")
    with tarfile.open(fileobj=io.BytesIO(whole.content)) as archive:
        assert archive.extractfile("large").read() == programs.LARGE.files["large"]  # type: ignore[union-attr]
    assert (await live.client.get(f"/status/{job_id}")).status_code == 404
    assert service.budget.used_bytes == 0


async def test_a_reader_that_stops_keeps_the_job(fake: FakeExecutor, deadline: float) -> None:
    async with kept(fake.path, send_seconds=0.1) as live:
        job_id = (await ended(live, programs.LARGE.code))["job_id"]
        job = live.server.config.app.state.service.store.get(job_id)
        with await begin(live, f"/download/{job_id}"):
            await until(lambda: not job.is_read, deadline)
        assert (await live.client.get(f"/status/{job_id}")).json()["status"] == "completed"


async def test_an_archive_of_nothing_is_a_download_too(live_fake: Live) -> None:
    job_id = (await ended(live_fake, programs.HELLO.code))["job_id"]
    packed = await live_fake.client.get(f"/download/{job_id}")
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as archive:
        assert archive.getnames() == []
    assert (await live_fake.client.get(f"/status/{job_id}")).status_code == 404


async def test_one_file_does_not_end_the_job(live_fake: Live) -> None:
    job_id = (await ended(live_fake, programs.FILES.code))["job_id"]
    assert (await live_fake.client.get(f"/download/{job_id}/results/data.csv")).status_code == 200
    assert (await live_fake.client.get(f"/status/{job_id}")).status_code == 200


async def test_bytes_of_a_deleted_job_count_as_long_as_they_are_sent(
    live_fake: Live, deadline: float
) -> None:
    job_id = (await ended(live_fake, programs.LARGE.code))["job_id"]
    service = live_fake.server.config.app.state.service
    job = service.store.get(job_id)
    before = memfds()
    with await begin(live_fake, f"/download/{job_id}/large"):
        assert (await live_fake.client.delete(f"/jobs/{job_id}")).status_code == 204
        assert (await live_fake.client.get(f"/status/{job_id}")).status_code == 404
        assert service.budget.used_bytes >= 8 << 20
        assert memfds() == before
    await until(lambda: not job.is_read, deadline)
    assert service.budget.used_bytes == 0
    assert memfds() == before - 1


async def test_the_status_says_when_it_goes(live_fake: Live) -> None:
    for program, seconds in ((programs.HELLO, 3600), (programs.FAILS, 300)):
        before = datetime.now(UTC).timestamp()
        status = await ended(live_fake, program.code)
        after = datetime.now(UTC).timestamp()
        expires = datetime.fromisoformat(str(status["expires_at"])).timestamp()
        assert int(before) + seconds <= expires <= after + seconds


async def test_the_oldest_make_room_but_not_what_is_being_read(fake: FakeExecutor, deadline: float) -> None:
    async with kept(fake.path, JobLimits(memory_budget_mb=32)) as live:
        service = live.server.config.app.state.service
        ids = [(await ended(live, programs.LARGE.code))["job_id"] for _ in range(3)]
        assert service.store.evictions == 0  # 24 of 25.6 MiB
        with await begin(live, f"/download/{ids[0]}/large"):
            ids.append((await ended(live, programs.LARGE.code))["job_id"])
            codes = [(await live.client.get(f"/status/{job_id}")).status_code for job_id in ids]
            assert codes == [200, 404, 200, 200]
        assert service.store.evictions == 1
        await until(lambda: not service.store.get(ids[0]).is_read, deadline)
        ids.append((await ended(live, programs.LARGE.code))["job_id"])
        assert (await live.client.get(f"/status/{ids[0]}")).status_code == 404


async def test_deleted_jobs_leave_no_descriptor(live_fake: Live) -> None:
    before = memfds()
    jobs = [await ended(live_fake, programs.FILES.code) for _ in range(3)]
    assert memfds() == before + 3
    for job in jobs:
        assert (await live_fake.client.delete(f"/jobs/{job['job_id']}")).status_code == 204
    assert memfds() == before


async def test_a_submission_that_is_refused_leaves_none_either(live_fake: Live, deadline: float) -> None:
    before = memfds()
    for manifest in ("{}", "nonsense", '{"entrypoint": "other.py"}'):
        answer = await live_fake.client.post(
            "/submit", files={"files": ("main.py", b"pass")}, data={"manifest": manifest}
        )
        assert answer.status_code == 400
    with pytest.raises(httpx.HTTPError):
        await live_fake.client.post("/submit", content=_cut(), headers={"content-type": MULTIPART})
    await until(lambda: memfds() == before, deadline)  # the last one is noticed when it is
    assert live_fake.server.config.app.state.service.budget.used_bytes == 0


MULTIPART = "multipart/form-data; boundary=x"


async def _cut() -> AsyncIterator[bytes]:
    yield b'--x\r\ncontent-disposition: form-data; name="files"; filename="main.py"\r\n\r\n' + b"#" * 100_000
    raise httpx.WriteError("the client went away")
