"""The numbers a server shows, and to whom."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandrun_shared.settings import Api, Executor, JobLimits, Quota, Settings
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
TEXT = {"content-type": "text/plain"}
NAMES = {
    "sandrun_jobs_total": "verdict",
    "sandrun_queue_length": "",
    "sandrun_running_jobs": "",
    "sandrun_queue_seconds": "",
    "sandrun_setup_seconds": "",
    "sandrun_run_seconds": "",
    "sandrun_held_bytes": "",
    "sandrun_evictions_total": "",
    "sandrun_executor_restarts_total": "",
    "sandrun_executor_ready": "",
    "sandrun_executor_slots_retired": "",
    "sandrun_executor_slots_reclaimed_total": "",
    "sandrun_executor_sandbox_failures_total": "",
    "sandrun_http_requests_total": "route,status",
    "sandrun_build_info": "kernel,python,version",
}
SUFFIXES = ("_bucket", "_count", "_sum")

Samples = dict[tuple[str, ...], float]


async def read(live: Live) -> Samples:
    """Values by name and the values of the labels."""
    answer = await live.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def run(live: Live, code: str) -> None:
    assert (await live.client.post("/run", content=code, headers=TEXT)).status_code == 200


async def test_names_and_labels_are_the_published_ones(live: Live) -> None:
    await run(live, programs.HELLO.code)
    text = (await live.client.get("/metrics")).text
    found: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name
            for suffix in SUFFIXES:
                name = name.removesuffix(suffix)
            found[name] = ",".join(label for label in sample.labels if label != "le")
    assert found == NAMES


async def test_jobs_are_counted_by_how_they_ended(live: Live) -> None:
    before = await read(live)
    for program in (programs.HELLO, programs.HELLO, programs.FAILS):
        await run(live, program.code)
    after = await read(live)

    def more(*key: str) -> float:
        return after.get(key, 0) - before.get(key, 0)

    assert more("sandrun_jobs_total", "ok") == 2
    assert more("sandrun_jobs_total", "nonzero_exit") == 1
    for name in ("queue", "setup", "run"):
        assert more(f"sandrun_{name}_seconds_count") == 3
    assert after["sandrun_run_seconds_sum",] > 0


async def test_what_waits_runs_and_is_held(fake: FakeExecutor) -> None:
    settings = Settings(executor=Executor(socket=str(fake.path)), quota=Quota(concurrent_jobs=1))
    async with serving(settings) as live:
        ids = []
        for _ in range(2):
            answer = await live.client.post(
                "/submit",
                files={"files": ("main.py", programs.WAITS.code.encode())},
                data={"manifest": '{"entrypoint": "main.py"}'},
            )
            ids.append(answer.json()["job_id"])
        await fake.until(lambda: fake.running == 1)
        seen = await read(live)
        assert (seen["sandrun_queue_length",], seen["sandrun_running_jobs",]) == (1, 1)
        assert seen["sandrun_held_bytes",] > 0
        for job_id in ids:
            await live.client.delete(f"/jobs/{job_id}")
        await fake.until(lambda: fake.running == 0)
        seen = await read(live)
        assert (seen["sandrun_queue_length",], seen["sandrun_running_jobs",]) == (0, 0)
        assert (seen["sandrun_held_bytes",], seen["sandrun_jobs_total", "cancelled"]) == (0, 2)


async def test_requests_are_counted_by_template(live_fake: Live) -> None:
    for path in ("/status/canary-1", "/status/canary-2", "/canary-3", "/logs/canary-4/events"):
        assert (await live_fake.client.get(path)).status_code == 404
    assert (await live_fake.client.put("/submit")).status_code == 405
    seen = await read(live_fake)
    counted = {key[1:]: value for key, value in seen.items() if key[0] == "sandrun_http_requests_total"}
    assert counted == {
        ("/status/{job_id}", "404"): 2,
        ("/logs/{job_id}/events", "404"): 1,
        ("unmatched", "404"): 1,
        ("/submit", "405"): 1,
    }
    assert not any("canary" in part for key in seen for part in key)


async def test_evictions_are_counted(fake: FakeExecutor) -> None:
    settings = Settings(
        executor=Executor(socket=str(fake.path)),
        quota=Quota(0, 0, 0, 0),
        limits=JobLimits(memory_budget_mb=16),
    )
    async with serving(settings) as live:
        for _ in range(2):
            answer = await live.client.post(
                "/submit",
                files={"files": ("main.py", programs.FLOOD.code.encode())},
                data={"manifest": '{"entrypoint": "main.py"}'},
            )
            await live.client.get(answer.headers["location"], params={"wait": 30})
        assert (await read(live))["sandrun_evictions_total",] == 1


async def test_the_executors_restarts_are_counted(live_fake: Live, fake: FakeExecutor) -> None:
    """The fake one is this process at every start; the count is of processes that listen, see below."""
    await run(live_fake, programs.HELLO.code)
    await fake.stop()
    fake.start()
    await run(live_fake, programs.HELLO.code)
    assert (await read(live_fake))["sandrun_executor_restarts_total",] == 0


async def test_what_only_the_executor_counts(live_fake: Live, fake: FakeExecutor) -> None:
    fake.retired, fake.reclaimed, fake.failures = 2, 3, 4
    seen = await read(live_fake)
    assert seen["sandrun_executor_ready",] == 1
    assert seen["sandrun_executor_slots_retired",] == 2
    assert seen["sandrun_executor_slots_reclaimed_total",] == 3
    assert seen["sandrun_executor_sandbox_failures_total",] == 4
    fake.problem = "no sandbox can be made on this server now"
    assert (await read(live_fake))["sandrun_executor_ready",] == 0
    assert not any(fake.tried)  # a scrape makes no sandboxes
    await fake.stop()
    seen = await read(live_fake)
    assert seen["sandrun_executor_ready",] == 0
    assert ("sandrun_executor_slots_retired",) not in seen
    fake.start()


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
async def test_what_a_proxy_passes_on_is_refused(live_fake: Live, name: str) -> None:
    answer = await live_fake.client.get("/metrics", headers={name: "127.0.0.1"})
    nothing = await live_fake.client.get("/nothing")
    assert (answer.status_code, answer.json()) == (404, nothing.json())


@pytest.mark.parametrize(("networks", "status"), [("", 404), ("10.0.0.0/8, 127.0.0.0/8", 200)])
async def test_behind_a_proxy_loopback_proves_nothing(tmp_path: Path, networks: str, status: int) -> None:
    api = Api(behind_proxy=True, metrics_networks=networks)
    async with AsyncExitStack() as stack:
        settings = Settings(executor=Executor(socket=str(tmp_path / "nothing")), api=api)
        live = await stack.enter_async_context(serving(settings))
        assert (await live.client.get("/metrics")).status_code == status
