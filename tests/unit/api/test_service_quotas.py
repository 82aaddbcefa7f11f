"""Quotas and turns with jobs that run, under a clock and an executor that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from sandrun_api.admission.budget import Reservation
from sandrun_api.errors import ApiError
from sandrun_api.jobs.gpus import Gpu
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.model import Job, JobRequest, State
from sandrun_api.jobs.requirements import Requirements
from sandrun_api.jobs.service import JobService
from sandrun_api.jobs.views import metrics_of
from sandrun_shared.jobs import Installer, Limits, UploadKind, Verdict
from sandrun_shared.memfds import Memfd
from sandrun_shared.protocol import Installed, Refused
from sandrun_shared.settings import JobLimits, Quota, Settings
from support.clocks import FakeClock
from support.scripted_executor import ScriptedExecutor

pytestmark = pytest.mark.anyio


class Bench:
    """A service whose jobs do what the test says."""

    def __init__(self, service: JobService, executor: ScriptedExecutor, clock: FakeClock) -> None:
        self.service = service
        self.executor = executor
        self.clock = clock

    def submit(
        self,
        client: str = "a",
        priority: str = "normal",
        gpu: Gpu | None = None,
        gpus: tuple[int, ...] = (),
        requirements: Requirements | None = None,
    ) -> Job:
        manifest = Manifest(entrypoint="main.py", priority=priority, gpu=gpu)  # type: ignore[arg-type]
        request = JobRequest(
            client, manifest, "python3", Limits(), UploadKind.bundle, "0" * 64, "hash", gpus, requirements
        )
        reservation = Reservation(self.service.budget)
        reservation.reserve(4)
        upload = Memfd.create("test", b"code")
        try:
            return self.service.submit(request, upload, reservation)
        except ApiError:
            upload.close()
            reservation.close()
            raise

    def refusal(self, client: str = "a") -> ApiError:
        with pytest.raises(ApiError) as caught:
            self.service.admit(client)
        return caught.value

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0)
        pytest.fail("it never came to that")

    async def runs(self, *jobs: Job) -> None:
        await self.until(lambda: {job.job_id for job in jobs} <= self.executor.running.keys())

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def finish(self, job: Job, cpu_seconds: float = 0.0, setup_cpu_seconds: float = 0.0) -> None:
        self.executor.running[job.job_id].finish(cpu_seconds, setup_cpu_seconds=setup_cpu_seconds)
        await self.until(lambda: job.job_id not in self.executor.running and job.is_finished)
        await self.settle()


@asynccontextmanager
async def bench(
    monkeypatch: pytest.MonkeyPatch, slots: int = 8, quota: Quota | None = None, **limits: float
) -> AsyncIterator[Bench]:
    clock = FakeClock()
    # Timers go by the same clock; the loop itself never waits here, so nothing hangs on it.
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock.seconds, raising=False)
    executor = ScriptedExecutor(slots)
    settings = Settings(quota=quota or Quota(), limits=JobLimits(**limits))  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as tasks:
        service = JobService(settings, executor, tasks, clock)
        await service.worker()
        try:
            yield Bench(service, executor, clock)
        finally:
            service.stop()
    service.store.close()
    assert service.budget.used_bytes == 0


async def test_cpu_is_charged_while_the_job_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        job = it.submit()
        await it.runs(job)
        for second in range(1, 11):
            it.service.admit("a")
            it.clock.advance(1)
            it.executor.running[job.job_id].uses(1.02 * second)
            await it.settle()
        error = it.refusal()
        assert (error.status, error.reason) == (429, "CPU quota exhausted (10.2/10.0 seconds used)")
        assert error.retry_after == 51
        assert error.headers["RateLimit"].startswith('"cpu";r=0;t=51')
        it.service.admit("b")
        await it.finish(job, 10.3)
        assert it.service.ledger.usage("a").cpu_seconds == pytest.approx(10.3)
        it.clock.advance(50)
        assert it.refusal().retry_after == 1
        it.clock.advance(1)
        it.service.admit("a")


async def test_installing_packages_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        job = it.submit()
        await it.runs(job)
        it.executor.running[job.job_id].uses(3.0)  # all of it by the installation
        await it.settle()
        await it.finish(job, 1.0, setup_cpu_seconds=3.5)
        assert it.service.ledger.usage("a").cpu_seconds == pytest.approx(4.5)


async def test_all_jobs_of_an_address_share_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        jobs = [it.submit(), it.submit()]
        await it.runs(*jobs)
        for job in jobs:
            await it.finish(job, 5.0)
        assert it.refusal().retry_after == 60


async def test_a_job_of_an_exhausted_address_waits_until_it_has_time_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(monkeypatch, slots=1) as it:
        first, second, other = it.submit("a"), it.submit("a"), it.submit("b")
        await it.runs(first)
        await it.finish(first, 12.0)
        await it.runs(other)
        await it.finish(other)
        assert second.state is State.queued
        it.clock.advance(59)
        await it.settle()
        assert second.state is State.queued
        it.clock.advance(1)
        await it.runs(second)


async def test_a_cancelled_job_has_not_run_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        job = it.submit()
        await it.runs(job)
        connection = it.executor.running[job.job_id]
        connection.uses(3.0)
        await it.settle()
        it.service.delete(job)
        await it.settle()
        assert connection.cancelled
        assert 3.0 < it.service.ledger.usage("a").cpu_seconds < 3.0 + 2.0 * Limits().cpu_cores


async def test_the_third_job_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        first, second, third, fourth = (it.submit() for _ in range(4))
        await it.runs(first, second)
        await it.settle()
        assert [it.service.queue.position(job) for job in (third, fourth)] == [1, 2]
        assert third.state is State.queued
        await it.finish(second)
        await it.runs(third)
        assert fourth.state is State.queued


async def test_ten_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        jobs = [it.submit() for _ in range(12)]
        error = it.refusal()
        assert (error.status, error.retry_after) == (429, 10)
        assert '"queue";r=0;t=10' in error.headers["RateLimit"]
        it.service.delete(jobs[-1])
        it.service.admit("a")


async def test_a_flood_delays_others_by_one_ending_job(monkeypatch: pytest.MonkeyPatch) -> None:
    quota = Quota(jobs_per_hour=0)
    for slots in (1, 2):
        async with bench(monkeypatch, slots=slots, quota=quota) as it:
            flood = [it.submit("a") for _ in range(10 + slots)]
            await it.settle()
            for _ in range(30):  # however long it goes on
                running = [job for job in flood if job.job_id in it.executor.running]
                assert len(running) == slots
                single = it.submit("b")
                assert it.service.queue.position(single) == 1
                await it.finish(running[0])
                await it.runs(single)
                assert it.refusal().status == 429  # its places are full all the time
                await it.finish(single)
                flood.append(it.submit("a"))
            order = [job_id for job_id in it.executor.started if job_id in {job.job_id for job in flood}]
            assert order == [job.job_id for job in flood][: len(order)]  # first in, first out


async def test_batch_jobs_wait_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, slots=1, quota=Quota(jobs_per_hour=0, queued_jobs=0)) as it:
        running = it.submit("a")
        batch = it.submit("b", "batch")
        await it.runs(running)
        for _ in range(59):
            following = it.submit("c")
            it.submit("d")
            await it.finish(running)
            it.clock.advance(1)
            assert batch.state is State.queued
            running = next(job for job in it.service.store if job.job_id in it.executor.running)
            assert following is not batch
        it.clock.advance(1)
        await it.finish(running)
        await it.runs(batch)


async def test_a_free_slot_goes_to_a_batch_job_when_its_patience_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(monkeypatch, batch_patience_seconds=5) as it:
        normal = [it.submit("a") for _ in range(3)]  # the third waits, and with it every batch job
        batch = it.submit("b", "batch")
        await it.runs(*normal[:2])
        it.clock.advance(4.5)
        await it.settle()
        assert batch.state is State.queued
        it.clock.advance(0.5)
        await it.runs(batch)


async def test_overdue_batch_jobs_leave_every_other_turn_to_normal_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(monkeypatch, slots=1, quota=Quota(0, 0, 0, 0)) as it:
        running = it.submit("z")
        jobs = {it.submit("a").job_id: "normal" for _ in range(3)}
        jobs |= {it.submit("b", "batch").job_id: "batch" for _ in range(3)}
        it.clock.advance(60)
        for _ in range(7):
            await it.runs(running)
            await it.finish(running)
            running = next((job for job in it.service.store if job.job_id in it.executor.running), running)
        assert [jobs[job_id] for job_id in it.executor.started[1:]] == ["batch", "normal"] * 3


async def test_an_hour_without_a_job_forgets_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        job = it.submit()
        await it.runs(job)
        await it.finish(job, 1.0)
        it.clock.advance(3599)
        await it.settle()
        assert len(it.service.ledger) == 1
        it.clock.advance(1)
        await it.settle()
        assert len(it.service.ledger) == 0
        assert not it.service.queue.knows("a")


async def test_no_memory_left_is_a_503_and_jobs_start_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, slots=2, memory_budget_mb=16) as it:
        first, second, third, fourth = (it.submit(client) for client in "abcd")
        await it.runs(first, second)
        it.service.budget.charge(16 << 20)  # more than there is: what jobs leave is kept nevertheless
        error = it.refusal("e")
        assert (error.status, error.retry_after) == (503, 10)
        await it.finish(first)
        assert third.state is State.queued
        await it.finish(second)
        await it.runs(third)
        assert fourth.state is State.queued
        it.service.budget.charge(-(16 << 20))
        it.service.admit("e")
        await it.finish(third)
        await it.runs(fourth)


async def test_an_executor_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        job = it.submit()
        await it.runs(job)
        it.clock.advance(Limits().wall_seconds + 119)
        await it.settle()
        assert not job.is_finished
        it.clock.advance(1)
        await it.until(lambda: job.is_finished)
        assert job.outcome is not None
        assert job.outcome.verdict.value == "executor_lost"


async def test_a_refusal_in_the_moment_of_the_next_attempt_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(monkeypatch) as it:
        it.executor.starts_jobs = False
        first, second = it.submit(), it.submit()
        await it.runs(first, second)
        it.executor.starts_jobs = True
        it.executor.running[first.job_id].say(Refused("full"))
        await it.until(lambda: first.state is State.queued)
        # In one turn of the loop the second is refused, and the time has come to try again.
        it.executor.running[second.job_id].say(Refused("full"))
        it.clock.advance(1)
        await it.settle()
        it.clock.advance(1)
        await it.runs(first, second)
        for job in (first, second):
            await it.finish(job)
            assert job.job_id in it.service.store._finished
        assert it.service.queue.running_total == 0
        assert it.executor.started == [first.job_id, second.job_id] * 2


async def test_jobs_wait_for_their_gpu_and_nobody_waits_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        first = it.submit("a", gpu=Gpu(), gpus=(1, 0))
        second = it.submit("b", gpu=Gpu(), gpus=(1, 0))
        third = it.submit("c", gpu=Gpu(), gpus=(1, 0))
        large = it.submit("d", gpu=Gpu(), gpus=(0,))
        plain = it.submit("e")
        await it.runs(first, second, plain)
        assert [it.executor.gpus[job.job_id] for job in (first, second, plain)] == [1, 0, None]
        assert [third.state, large.state] == [State.queued, State.queued]
        await it.finish(first)
        await it.runs(third)
        assert it.executor.gpus[third.job_id] == 1
        assert large.state is State.queued
        await it.finish(second)
        await it.runs(large)
        assert it.executor.gpus[large.job_id] == 0
        for job in (third, large, plain):
            await it.finish(job)


async def test_a_gpu_that_is_only_wished_for_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        jobs = [it.submit(client, gpu=Gpu(required=False), gpus=(0,)) for client in ("a", "b")]
        await it.runs(*jobs)
        assert [it.executor.gpus[job.job_id] for job in jobs] == [0, None]
        for job in jobs:
            await it.finish(job)


async def test_no_gpu_is_held_while_packages_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    required = Requirements(Installer.uv, b"")
    async with bench(monkeypatch) as it:
        job = it.submit("a", gpu=Gpu(), gpus=(0,), requirements=required)
        await it.runs(job)
        assert (it.executor.installs, it.executor.gpus[job.job_id]) == ({job.job_id}, None)
        other = it.submit("b", gpu=Gpu(), gpus=(0,))
        await it.runs(other)
        assert it.executor.gpus[other.job_id] == 0
        connection = it.executor.running[job.job_id]
        connection.uses(1.5)
        connection.say(Installed(setup_seconds=5.0, setup_cpu_seconds=2.0))
        await it.until(lambda: job.state is State.queued)
        await it.settle()
        assert job.job_id not in it.executor.running
        assert it.service.ledger.usage("a").cpu_seconds == 2.0
        await it.finish(other)
        await it.runs(job)
        assert (it.executor.installs, it.executor.gpus[job.job_id]) == (set(), 0)
        await it.finish(job, 0.5)
        assert it.service.ledger.usage("a").cpu_seconds == 2.5
        metrics = metrics_of(job)
        assert (metrics["cpu_seconds"], metrics["setup_cpu_seconds"]) == (0.5, 2.0)
        assert metrics["setup_seconds"] >= 5.0
        # Without a wish for a device one request does it all.
        plain = it.submit("c", requirements=required)
        await it.runs(plain)
        assert it.executor.installs == set()
        await it.finish(plain)


@pytest.mark.parametrize("ends_by", ["a failure", "its deletion", "its deletion while it waits"])
async def test_a_job_that_ends_before_it_has_its_gpu(monkeypatch: pytest.MonkeyPatch, ends_by: str) -> None:
    async with bench(monkeypatch) as it:
        holder = it.submit("b", gpu=Gpu(), gpus=(0,))
        job = it.submit("a", gpu=Gpu(), gpus=(0,), requirements=Requirements(Installer.uv, b""))
        await it.runs(holder, job)
        if ends_by == "a failure":
            it.executor.running[job.job_id].finish(1.0, Verdict.setup_error)
        elif ends_by == "its deletion":
            it.service.delete(job)
        else:
            it.executor.running[job.job_id].say(Installed(1.0, 1.0))
            await it.until(lambda: job.state is State.queued)
            it.service.delete(job)
        await it.until(lambda: job.is_finished)
        await it.finish(holder)
        assert (len(it.service.queue), it.service.queue.running_total) == (0, 0)
        assert it.executor.started.count(job.job_id) == 1


async def test_a_gpu_is_free_again_when_its_job_was_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch) as it:
        it.executor.starts_jobs = False
        job = it.submit("a", gpu=Gpu(), gpus=(0,))
        await it.runs(job)
        it.executor.running[job.job_id].say(Refused("full"))
        await it.until(lambda: job.state is State.queued)
        it.executor.starts_jobs = True
        it.clock.advance(1)
        await it.runs(job)
        assert it.executor.gpus[job.job_id] == 0
        await it.finish(job)
