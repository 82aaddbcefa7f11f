"""Whom the operator does not serve, what others are told of the operator, and what refusals are counted as."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import websockets
from prometheus_client.parser import text_string_to_metric_families

from sandrun_api.admission import floods
from sandrun_api.edge.access import MOST_DENIED, Access, Denied
from sandrun_api.edge.clients import Clients, key_of
from sandrun_shared.settings import Access as Rules
from sandrun_shared.settings import Api, Executor, JobLimits, Quota, Settings, SettingsError
from support import programs
from support.clocks import FakeClock
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
TEXT = {"content-type": "text/plain"}
PROXIED = {"trusted_proxies": "127.0.0.0/8", "metrics_networks": "127.0.0.0/8"}
FREE = Quota(cpu_seconds_per_minute=0, concurrent_jobs=0, jobs_per_hour=0, queued_jobs=0)


@asynccontextmanager
async def guarded(
    path: Path, access: Rules | None = None, quota: Quota = FREE, api: dict[str, object] | None = None
) -> AsyncIterator[Live]:
    settings = Settings(
        executor=Executor(socket=str(path)),
        access=access or Rules(),
        quota=quota,
        api=Api(**(PROXIED if api is None else api)),  # type: ignore[arg-type]
        limits=JobLimits(queue_length=1),
    )
    async with serving(settings, now=FakeClock()) as live:
        yield live


async def get(live: Live, client: str, path: str = "/stats") -> httpx.Response:
    """Ask as a client behind the proxy."""
    return await live.client.get(path, headers={"x-forwarded-for": client})


async def refusals(live: Live) -> dict[str, float]:
    text = (await live.client.get("/metrics")).text
    return {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "sandrun_refusals_total"
    }


@pytest.mark.parametrize(
    ("allow", "deny", "served", "refused"),
    [
        (
            "",
            "198.51.100.0/24, 2001:db8::/32",
            ["203.0.113.1", "2001:db9::1"],
            ["198.51.100.9", "2001:db8::1"],
        ),
        ("198.51.100.0/24", "", ["198.51.100.9", "::ffff:198.51.100.9"], ["203.0.113.1", "2001:db8::1"]),
        ("198.51.100.0/24", "198.51.100.9/32", ["198.51.100.8"], ["198.51.100.9", "::ffff:198.51.100.9"]),
    ],
)
async def test_networks(
    fake: FakeExecutor, allow: str, deny: str, served: list[str], refused: list[str]
) -> None:
    api = {**PROXIED, "contact": "abuse@example.org"}
    async with guarded(fake.path, Rules(allow_networks=allow, deny_networks=deny), api=api) as live:
        for client in served:
            assert (await get(live, client)).status_code == 200
        for client in refused:
            for path in ("/stats", "/", "/health", "/metrics", "/nothing", "/openapi.json"):
                answer = await get(live, client, path)
                assert answer.status_code == 403
                assert answer.json()["reason"] == (
                    "This server does not serve your address. Contact: abuse@example.org"
                )
            run = await live.client.post(
                "/run", content=programs.HELLO.code, headers={**TEXT, "x-forwarded-for": client}
            )
            assert run.status_code == 403
            with pytest.raises(websockets.InvalidStatus) as caught:
                await websockets.connect(
                    f"ws://127.0.0.1:{live.port}/stream/x",
                    additional_headers={"x-forwarded-for": client},
                    proxy=None,
                )
            assert caught.value.response.status_code == 403
        assert fake.executed == []
        assert (await refusals(live))["denied"] == 8 * len(refused)


async def test_this_machine_may_always_ask_whether_it_is_well(fake: FakeExecutor) -> None:
    async with guarded(fake.path, Rules(allow_networks="198.51.100.0/24"), api={}) as live:
        assert (await live.client.get("/health")).status_code == 200
        assert (await live.client.get("/metrics")).status_code == 200
        for path in ("/stats", "/health/", "/"):
            assert (await live.client.get(path)).status_code == 403
        for header in ("x-forwarded-for", "forwarded", "via"):
            assert (await live.client.get("/health", headers={header: "127.0.0.1"})).status_code == 403


async def test_a_client_is_denied_by_its_key_and_a_network_while_it_runs(fake: FakeExecutor) -> None:
    async with guarded(fake.path, quota=Quota(network_prefix="24, 56")) as live:
        access: Access = live.server.config.app.state.access
        access.deny(key_of("198.51.100.9"))
        access.deny("203.0.113.0/24")
        codes = [(await get(live, f"198.51.100.{last}")).status_code for last in (9, 8)]
        assert codes == [403, 200]
        assert (await get(live, "203.0.113.77")).status_code == 403


@pytest.mark.parametrize("what", ["", "nonsense", "198.51.100.1/24", "f" * 31, "F" * 32, "g" * 32])
def test_what_cannot_be_denied(what: str) -> None:
    with pytest.raises(Denied, match="neither"):
        Access(Settings(), Clients()).deny(what)


def test_what_is_denied_is_bounded() -> None:
    access = Access(Settings(), Clients())
    for number in range(MOST_DENIED):
        access.deny(f"{number:032x}")
    with pytest.raises(Denied, match="already"):
        access.deny("198.51.100.0/24")
    networks = ", ".join(f"10.{number >> 8}.{number & 255}.0/24" for number in range(MOST_DENIED + 1))
    with pytest.raises(SettingsError, match=r"access\.deny_networks: 1001 networks"):
        Access(Settings(access=Rules(deny_networks=networks)), Clients())


async def test_a_network_has_quotas_besides_those_of_its_addresses(fake: FakeExecutor) -> None:
    quota = Quota(jobs_per_hour=2, network_prefix="/24, /56", network_factor=2)
    async with guarded(fake.path, quota=quota) as live:

        async def run(client: str) -> httpx.Response:
            headers = {**TEXT, "x-forwarded-for": client}
            return await live.client.post("/run", content=programs.HELLO.code, headers=headers)

        for last in (1, 1, 2, 3):
            assert (await run(f"198.51.100.{last}")).status_code == 200
        refused = await run("198.51.100.4")
        assert refused.status_code == 429
        assert refused.json()["reason"] == (
            "Your network's hourly quota exhausted (4/4 jobs submitted in the last hour)"
        )
        assert refused.json()["retry_after"] == 3600
        assert (await run("198.51.101.1")).status_code == 200
        assert [(await run(f"2001:db8::{part}:1")).status_code for part in (1, 2)] == [200, 200]
        for part in range(4):
            answer = await run(f"2001:db8:1:{part}::1")
            assert answer.status_code == 200
        assert (await run("2001:db8:1:ff::1")).status_code == 429
        assert (await run("2001:db8:1:100::1")).status_code == 200
        assert await refusals(live) == {"network_jobs": 2}


async def test_a_network_has_so_many_jobs_running_and_waiting(fake: FakeExecutor) -> None:
    quota = Quota(concurrent_jobs=1, queued_jobs=1, network_prefix="24,56", network_factor=2)
    settings = Settings(executor=Executor(socket=str(fake.path)), quota=quota, api=Api(**PROXIED))  # type: ignore[arg-type]
    async with serving(settings, now=FakeClock()) as live:

        async def submit(last: int) -> httpx.Response:
            return await live.client.post(
                "/submit",
                files=[("files", ("main.py", programs.WAITS.code.encode()))],
                data={"manifest": '{"entrypoint": "main.py"}'},
                headers={"x-forwarded-for": f"198.51.100.{last}"},
            )

        answers = [await submit(last) for last in (1, 2, 3, 4, 5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
        assert answers[-1].json()["reason"] == "2 jobs of your network are waiting already."
        await fake.until(lambda: fake.running == 2)
        stats = (await live.client.get("/stats")).json()["system"]
        assert (stats["active_jobs"], stats["queue_length"]) == (2, 2)
        await live.client.delete(f"/jobs/{answers[0].json()['job_id']}")
        await fake.until(lambda: len(fake.executed) == 3)


async def test_refusals_are_counted_by_their_cause(fake: FakeExecutor) -> None:
    quota = Quota(jobs_per_hour=3, concurrent_jobs=1, queued_jobs=1, cpu_seconds_per_minute=0)
    async with guarded(fake.path, quota=quota, api={}) as live:
        files = [("files", ("main.py", programs.WAITS.code.encode()))]
        manifest = {"manifest": '{"entrypoint": "main.py"}'}
        codes = [
            (await live.client.post("/submit", files=files, data=manifest)).status_code for _ in range(3)
        ]
        assert codes == [200, 200, 429]
        await live.client.get("/stats")  # says so, and is no refusal
        await live.client.get("/", headers={"origin": "https://evil.example"})
        await live.client.get("/", headers={"host": "evil.example"})
        assert await refusals(live) == {"waiting_jobs": 1, "origin": 1, "host": 1}


async def test_a_flood_is_logged_by_the_key_of_its_client(
    fake: FakeExecutor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floods, "FLOOD", 3)
    async with guarded(fake.path, quota=Quota(jobs_per_hour=1)) as live:
        headers = {**TEXT, "x-forwarded-for": "198.51.100.9"}
        with caplog.at_level(logging.WARNING):
            for _ in range(9):
                await live.client.post("/run", content=programs.HELLO.code, headers=headers)
    [line] = [record.getMessage() for record in caplog.records]
    key = key_of("198.51.100.9")
    assert (
        line == f"client {key} was refused 3 times within a minute (jobs); sandrun admin deny {key} ends that"
    )
    assert "198.51" not in caplog.text


async def test_who_runs_the_server(fake: FakeExecutor) -> None:
    async with guarded(fake.path, api={"notice": "Be kind.", "contact": "abuse@example.org"}) as live:
        info = (await live.client.get("/")).json()
        assert (info["notice"], info["contact"]) == ("Be kind.", "abuse@example.org")
    async with guarded(fake.path, api={}) as live:
        info = (await live.client.get("/")).json()
        assert (info["notice"], info["contact"]) == (None, None)
