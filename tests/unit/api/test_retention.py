"""When finished jobs go, under the loop's clock, which the test moves; what they leave in memory."""

import asyncio
import gc

import pytest

from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.jobs.following import Follower
from sandrun_api.jobs.idempotency import IdempotencyKeys
from sandrun_api.jobs.logs import JobLogs
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.model import Job, JobRequest, State
from sandrun_api.jobs.store import JobStore
from sandrun_shared.jobs import Limits, Outcome, UploadKind, Verdict
from sandrun_shared.memfds import Memfd
from sandrun_shared.settings import Api
from support.clocks import FakeClock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The loop's."""
    moved = FakeClock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", moved.seconds, raising=False)
    return moved


def ended(store: JobStore, budget: MemoryBudget, verdict: Verdict, size: int = 10) -> Job:
    request = JobRequest(
        "a", Manifest(entrypoint="main.py"), "python3", Limits(), UploadKind.bundle, "0" * 64, "hash"
    )
    job = Job(request, Memfd.create("test"), Reservation(budget))
    store.add(job)
    job.transition(State.running)
    job.logs.append(1, b"x" * size)
    job.finish(Outcome(verdict, 0))
    store.retain(job)
    return job


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_failed_jobs_go_first(clock: FakeClock) -> None:
    budget = MemoryBudget(1 << 20)
    gone: list[str] = []
    store = JobStore(Api(failed_retention_seconds=5, retention_seconds=60), budget, gone.append)
    failed, completed = (ended(store, budget, verdict) for verdict in (Verdict.nonzero_exit, Verdict.ok))
    clock.advance(4.9)
    await turn()
    assert len(store) == 2
    clock.advance(0.1)
    await turn()
    assert gone == [failed.job_id]
    clock.advance(54.9)
    await turn()
    assert store.get(completed.job_id) is completed
    clock.advance(0.1)
    await turn()
    assert len(store) == 0
    assert budget.used_bytes == 0


@pytest.mark.parametrize("percent", [50.0, 80.0])
async def test_pressure_begins_where_it_is_set(percent: float) -> None:
    budget = MemoryBudget(1000, percent)
    store = JobStore(Api(), budget)
    size = int(10 * percent) - 30  # of the first; each keeps 9 bytes more for the kinds of its output
    first = ended(store, budget, Verdict.ok, size)
    second = ended(store, budget, Verdict.ok, 12)
    assert (len(store), store.evictions) == (2, 0)
    ended(store, budget, Verdict.ok, 1)
    assert store.get(first.job_id) is None
    assert store.get(second.job_id) is second
    assert store.evictions == 1
    store.close()


async def test_a_key_is_forgotten_with_its_job() -> None:
    budget, keys = MemoryBudget(1 << 20), IdempotencyKeys()
    store = JobStore(Api(), budget, keys.forget)
    job = ended(store, budget, Verdict.ok)
    keys.remember("a", "my key", job.job_id, "hash")
    assert keys.knows("a", "my key")
    assert not keys.knows("b", "my key")
    assert "my key" not in repr(vars(keys))
    store.remove(job.job_id)
    assert not keys.knows("a", "my key")
    assert not any(vars(keys)[name] for name in ("_jobs", "_digests"))


async def test_logs_are_overwritten_not_only_dropped() -> None:
    logs = JobLogs(1 << 20, Reservation(MemoryBudget(1 << 20)))
    logs.append(1, b"canary" * 10_000)
    data = logs._data
    view = memoryview(data)  # pins the bytes: what is dropped before it is overwritten stays readable
    with pytest.raises(BufferError):
        logs.forget()
    assert bytes(view) == bytes(60_000)
    view.release()
    gc.collect()


async def test_a_reader_of_forgotten_logs_learns_that_it_was_cut() -> None:
    logs = JobLogs(1 << 20, Reservation(MemoryBudget(1 << 20)))
    logs.append(1, b"abc")
    behind, abreast = Follower(logs), Follower(logs)
    assert [text.text for text in abreast.take()] == ["abc"]
    logs.forget()
    logs.append(1, b"more")
    assert logs.size == 3
    assert not await behind.wait()
    assert list(behind.take()) == []
    assert behind.is_cut
    assert not abreast.is_cut
