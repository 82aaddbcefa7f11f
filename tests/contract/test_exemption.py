"""On one's own machine no quota holds; whatever may be somebody else's request has the quotas of all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from sandrun_api import server
from sandrun_api.edge.clients import FORWARDING
from sandrun_shared.settings import Api, Executor, Quota, Settings, SettingsError
from support import programs
from support.clocks import FakeClock
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
TEXT = {"content-type": "text/plain"}
ONE_AN_HOUR = Quota(jobs_per_hour=1, concurrent_jobs=1, queued_jobs=1, cpu_seconds_per_minute=0.001)
EXEMPTING = msgspec.structs.replace(ONE_AN_HOUR, exempt_networks="127.0.0.0/8, 198.51.100.0/24")


@asynccontextmanager
async def own(path: Path, quota: Quota = ONE_AN_HOUR, **api: object) -> AsyncIterator[Live]:
    settings = Settings(executor=Executor(socket=str(path)), quota=quota, api=Api(**api))  # type: ignore[arg-type]
    # Loopback is exempt by the command's word, or by the setting where a test gives one.
    is_personal = quota is ONE_AN_HOUR
    async with serving(settings, now=FakeClock(), exempt_loopback=is_personal) as live:
        yield live


async def run(live: Live, **headers: str) -> httpx.Response:
    return await live.client.post("/run", content=programs.HELLO.code, headers={**TEXT, **headers})


async def is_exempt(live: Live, **headers: str) -> bool:
    """Whether a third job is taken, where one is allowed; each kind of request has a separate account."""
    answers = [await run(live, **headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert answers[0].status_code in (200, 429)
    limit = (await live.client.get("/stats", headers=headers)).json()["your_quota"]["max_jobs_per_hour"]
    taken = answers[-1].status_code == 200
    assert taken is (limit is None)
    assert ("ratelimit" in answers[-1].headers) is not taken
    return taken


async def test_this_machine_is_exempt_and_its_jobs_run_at_once(fake: FakeExecutor, deadline: float) -> None:
    async with own(fake.path) as live:
        assert await is_exempt(live)
        assert await is_exempt(live, origin=f"http://127.0.0.1:{live.port}")
        assert await is_exempt(live, origin="http://localhost:3000")  # a page of this machine
        files = [("files", ("main.py", programs.WAITS.code.encode()))]
        for _ in range(3):
            answer = await live.client.post(
                "/submit", files=files, data={"manifest": '{"entrypoint": "main.py"}'}
            )
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers
        async with asyncio.timeout(deadline):
            await fake.until(lambda: fake.running == 3)


@pytest.mark.parametrize(
    "name", [*sorted(FORWARDING), "x-forwarded-for", "x-forwarded-proto", "X-Forwarded-Anything"]
)
async def test_what_was_passed_on_is_not_exempt(fake: FakeExecutor, name: str) -> None:
    for quota in (ONE_AN_HOUR, EXEMPTING):
        async with own(fake.path, quota) as live:
            assert await is_exempt(live)
            assert not await is_exempt(live, **{name: "127.0.0.1"})
            assert not await is_exempt(live, **{name: ""})


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://evil.example:8443", "host": "evil.example:8443"},
    ],
    ids=str,
)
async def test_a_page_of_another_site_is_not_exempt(fake: FakeExecutor, headers: dict[str, str]) -> None:
    # Were such pages let in, which by default they are not.
    for quota in (ONE_AN_HOUR, EXEMPTING):
        async with own(fake.path, quota, allowed_origins="*", allowed_hosts="*") as live:
            assert await is_exempt(live)
            assert not await is_exempt(live, **headers)


async def test_a_name_that_was_made_to_lead_here_is_not_exempt(fake: FakeExecutor) -> None:
    async with own(fake.path, allowed_hosts="*") as live:
        assert not await is_exempt(live, host="evil.example")


async def test_the_name_of_the_server_may_be_its_own_pages(fake: FakeExecutor) -> None:
    async with own(fake.path, EXEMPTING, allowed_hosts="sandrun.example.org") as live:
        assert await is_exempt(live, host="sandrun.example.org", origin="http://sandrun.example.org")


async def test_behind_a_trusted_proxy_the_client_counts(fake: FakeExecutor) -> None:
    async with own(fake.path, EXEMPTING, trusted_proxies="127.0.0.1/32") as live:
        assert await is_exempt(live, **{"x-forwarded-for": "198.51.100.7", "via": "1.1 proxy"})
        assert not await is_exempt(live, **{"x-forwarded-for": "203.0.113.9"})
        assert not await is_exempt(live, **{"x-forwarded-for": "198.51.100.7, 203.0.113.9"})
        assert not await is_exempt(live, **{"x-forwarded-for": "nobody"})
        assert not await is_exempt(live, via="1.1 proxy")


@pytest.mark.parametrize(
    "api",
    [
        Api(host="0.0.0.0", behind_proxy=True),
        Api(host="", behind_proxy=True),
        Api(host="192.0.2.1", behind_proxy=True),
        Api(behind_proxy=True),
        Api(trusted_proxies="127.0.0.1/32"),
    ],
    ids=str,
)
def test_nothing_beyond_loopback_exempts_anybody(api: Api) -> None:
    server.check_personal(Api(), {})
    server.configure(Settings(api=api))
    with pytest.raises(SettingsError, match="loopback"):
        server.configure(Settings(api=api), exempt_loopback=True)


def test_no_service_exempts_anybody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.configure(Settings(), exempt_loopback=True)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match="service"):
        server.configure(Settings(), exempt_loopback=True)


async def test_an_exempt_client_takes_turns_and_stays_within_the_queue(fake: FakeExecutor) -> None:
    settings = Settings(
        executor=Executor(socket=str(fake.path)),
        quota=ONE_AN_HOUR,
        limits=msgspec.convert({"queue_length": 2, "memory_budget_mb": 16}, type=type(Settings().limits)),
    )
    fake.slots = 1
    async with serving(settings, now=FakeClock(), exempt_loopback=True) as live:
        files = [("files", ("main.py", programs.WAITS.code.encode()))]
        manifest = {"manifest": '{"entrypoint": "main.py"}'}
        first = await live.client.post("/submit", files=files, data=manifest)
        own_jobs = [await live.client.post("/submit", files=files, data=manifest) for _ in range(1)]
        other = await live.client.post("/submit", files=files, data=manifest, headers={"via": "1.1 proxy"})
        full = await live.client.post("/submit", files=files, data=manifest)
        assert [answer.status_code for answer in (first, *own_jobs, other, full)] == [200, 200, 200, 503]
        assert full.json()["reason"] == "The queue is full; try again soon."
        assert other.json()["queue_position"] == 1  # it had no turn yet
        large = await live.client.post("/run", content=b"#" * (15 << 20), headers=TEXT)
        assert large.status_code == 503
