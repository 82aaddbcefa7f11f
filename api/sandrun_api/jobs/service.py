"""Runs the jobs: admission, the waiting line, one task per running job."""

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sandrun_api.admission.accounts import Accounts
from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.admission.gate import Gate, unavailable
from sandrun_api.admission.quotas import Clock, clock
from sandrun_api.admission.threads import Threads
from sandrun_api.edge.middleware import report
from sandrun_api.jobs.gpus import Shares
from sandrun_api.jobs.hints import hints_of
from sandrun_api.jobs.idempotency import IdempotencyKeys
from sandrun_api.jobs.model import Job, JobRequest, State
from sandrun_api.jobs.outputs import BadIndex, Outputs, adopt
from sandrun_api.jobs.queue import FairQueue
from sandrun_api.jobs.store import JobStore
from sandrun_api.uploads.contents import MANIFEST_BYTES, NAMES_BYTES
from sandrun_shared import framing
from sandrun_shared.executor_client import Connection, ExecutorAway, ExecutorClient, ExecutorLost
from sandrun_shared.jobs import Outcome, Verdict
from sandrun_shared.memfds import Memfd
from sandrun_shared.orders import Order, encode_order
from sandrun_shared.protocol import (
    Description,
    Event,
    Execute,
    Finished,
    Installed,
    Output,
    Refused,
    Started,
    Usage,
)
from sandrun_shared.settings import Settings

FIRST_RETRY_SECONDS = 0.002  # a slot is free again moments after its job's last word
LAST_RETRY_SECONDS = 0.25
PATIENCE_SECONDS = 60.0  # for one job's attempts
UNAVAILABLE_SECONDS = 3.0  # for all attempts, from the first that found that no sandbox can be made
FORGIVEN_SECONDS = 10.0  # after the last of them the next is a first again
SILENCE_SECONDS = 5.0  # before the first word on a job, after which the executor is asked whether it is there
SILENCES = 2
OVERDUE_SECONDS = 120.0  # beyond a job's own time, for its set-up and its outputs
SPARE_BYTES = NAMES_BYTES + 4 * MANIFEST_BYTES  # besides an upload: its names; its manifest, as read too
UNMEASURED_SECONDS = 2.0  # between two words of the executor on what a job uses, at most


def share_of(settings: Settings) -> int:
    """Bytes that unfinished requests of one client may hold; one upload has room in any case. 0: no limit."""
    share = settings.quota.unfinished_mb << 20
    return max(share, settings.api.upload_bytes + SPARE_BYTES) if share else 0


class _NotTaken(Exception):
    """The executor is there but has no room or can make no sandbox, or it is away: try again."""

    def __init__(self, verdict: Verdict, detail: str, *, unavailable: bool = False) -> None:
        super().__init__(detail)
        self.verdict = verdict
        self.detail = detail
        self.unavailable = unavailable


class _Silent(ExecutorLost):
    """The executor has a job and says nothing, neither on it nor on itself."""


class JobService:
    """Everything between an accepted upload and a finished job."""

    def __init__(
        self,
        settings: Settings,
        executor: ExecutorClient,
        tasks: asyncio.TaskGroup,
        now: Clock = clock,
    ) -> None:
        self._settings = settings
        self._executor = executor
        self._tasks = tasks
        self._running: dict[str, asyncio.Task[_NotTaken | None]] = {}
        self._worker: Description | None = None
        self.idempotency = IdempotencyKeys()
        self._retry: asyncio.TimerHandle | None = None
        self._pause_seconds = FIRST_RETRY_SECONDS
        self._unavailable_since = self._unavailable_at = float("-inf")
        self._stopping = False
        self.draining = False  # new jobs are refused, those there are go on
        self.job_ended: Callable[[Job], None] = lambda _: None
        self._gpus = Shares()
        self.uses: Counter[str] = Counter()  # jobs run, by environment
        self._wake: asyncio.TimerHandle | None = None
        self._tidy: asyncio.TimerHandle | None = None
        limits = settings.limits
        self.budget = MemoryBudget(
            limits.memory_budget_mb << 20, limits.memory_pressure_percent, share_of(settings)
        )
        self.store = JobStore(settings.api, self.budget, self.idempotency.forget)
        self.ledger = Accounts(settings.quota, now)
        self.threads = Threads(self._charge_thread)
        self.queue = FairQueue(
            settings.quota.concurrent_jobs,
            batch_patience_seconds=limits.batch_patience_seconds,
            hold=self.ledger.cpu_wait,
            ready=self._may_run,
            now=now,
        )
        self.ledger.network_is_busy = self.queue.knows_network
        self.gate = Gate(settings, self.ledger, self.queue, self.budget)
        self.gate.is_closed = lambda: self._stopping or self.draining
        self.budget.too_much = self.gate.too_many

    async def worker(
        self, *, fresh: bool = False, environment: str | None = None, try_sandbox: bool = False
    ) -> Description:
        """What the executor can do, as it last said. Raises ApiError (503) when it is away.

        It is asked again about an environment that it did not have then, as one may have been built since,
        and after it had a problem. With try_sandbox it also tries whether it can make a sandbox.
        """
        known = self._worker.environments if self._worker is not None else ()
        new = environment is not None and not any(item.built and item.name == environment for item in known)
        if self._worker is None or self._worker.problem or fresh or new:
            with self.reaching_executor() as executor:
                self._worker = await executor.describe(try_sandbox=try_sandbox)
        return self._worker

    async def worker_for_job(self, environment: str) -> Description:
        """As worker. Raises ApiError (503) with the cause when no job could run now, too."""
        return ready(await self.worker(environment=environment))

    @property
    def known_worker(self) -> Description | None:
        """What the executor last said, unless it is away."""
        return self._worker

    @contextmanager
    def reaching_executor(self) -> Iterator[ExecutorClient]:
        """Ask the executor something; when it is away, that is noted, and ApiError (503) raised."""
        try:
            yield self._executor
        except ExecutorLost:
            self._worker = None
            raise unavailable("The executor is not there; try again soon.", 5, "executor") from None

    @property
    def capacity(self) -> int:
        """Jobs that can run at once, as far as is known."""
        return self._worker.slots if self._worker is not None else self._settings.executor.slots

    @property
    def worker_id(self) -> str:
        """The executor's name for itself, as far as is known."""
        return self._worker.worker_id if self._worker is not None else ""

    def admit(self, client: str) -> None:
        """Whether the client may submit one more job. Raises ApiError (429, 503)."""
        self.gate.admit(client)

    def rate_limits(self, client: str) -> dict[str, str]:
        """The RateLimit header fields of an answer to the client."""
        return self.gate.rate_limits(client)

    def submit(self, request: JobRequest, upload: Memfd, reservation: Reservation) -> Job:
        """Take a job over, its upload and reservation included. Raises ApiError, and then takes nothing."""
        self.admit(request.client)
        job = Job(request, upload, reservation)
        job.ended = self.job_ended
        reservation.settle()
        self.store.add(job)
        self.ledger.submitted(request.client)
        self.queue.push(job)
        if self._tidy is None:
            self._forget_idle()
        self._dispatch()
        return job

    def delete(self, job: Job) -> None:
        """Cancel a job that is not finished, and forget it."""
        if self.queue.remove(job):
            self._conclude(job, Outcome(Verdict.cancelled, detail="cancelled before it ran"))
        elif (task := self._running.get(job.job_id)) is not None:
            task.cancel()
        self.store.remove(job.job_id)
        self._dispatch()

    def cancel(self, job: Job, detail: str) -> None:
        """End a job that is not finished; its client sees that it was cancelled, and why."""
        job.cancelled_as = detail
        if self.queue.remove(job):
            self._conclude(job, Outcome(Verdict.cancelled, detail=detail))
            self.store.retain(job)
        elif (task := self._running.get(job.job_id)) is not None:
            task.cancel()
        self._dispatch()

    def stop(self) -> None:
        """Take no more jobs, end those there are."""
        self._stopping = True
        for timer in (self._retry, self._wake, self._tidy):
            if timer is not None:
                timer.cancel()
        for job in self.queue.drain():
            self._conclude(job, Outcome(Verdict.cancelled, detail="the server stopped"))
        for task in self._running.values():
            task.cancel()

    def _dispatch(self) -> None:
        if self._stopping or self._retry is not None:
            return
        while self._may_start_one() and (job := self.queue.pop()) is not None:
            job.transition(State.running)
            job.gpu = None if job.installs_first else self._gpus.take(job.request.gpus)
            task = self._tasks.create_task(self._run(job))
            self._running[job.job_id] = task
            task.add_done_callback(functools.partial(self._ended, job))
        self._wake_when_due()

    def _may_run(self, job: Job) -> bool:
        has_its_gpu = not job.needs_device or self._gpus.has_one(job.request.gpus)
        return has_its_gpu and self.gate.may_run(job.request.client)

    def _may_start_one(self) -> bool:
        # What a job leaves is kept whether there is room or not: beyond the budget one at a time.
        return len(self._running) < (1 if self.budget.is_spent else self.capacity)

    def _wake_when_due(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self._may_start_one() and (pause := self.queue.pause()) is not None:
            self._wake = asyncio.get_running_loop().call_later(pause, self._dispatch)

    def _forget_idle(self) -> None:
        pause = self.ledger.forget_idle(self.queue.knows)
        self._tidy = None
        if pause is not None:
            self._tidy = asyncio.get_running_loop().call_later(pause, self._forget_idle)

    def _charge(self, job: Job, cpu_seconds: float) -> None:
        """Count what a job has used so far against its client's quota."""
        job.measured_at = time.monotonic()
        if cpu_seconds > job.cpu_seconds:
            self.ledger.charge(job.request.client, cpu_seconds - job.cpu_seconds)
            job.cpu_seconds = cpu_seconds

    def _charge_unmeasured(self, job: Job) -> None:
        # A client that always cancelled before the next report would pay nothing: count the most it can be.
        if job.measured_at is not None:
            seconds = min(time.monotonic() - job.measured_at, UNMEASURED_SECONDS)
            self.ledger.charge(job.request.client, seconds * job.request.limits.cpu_cores)

    def _charge_thread(self, client: str, cpu_seconds: float) -> None:
        """Count CPU time that a thread of ours used for a client, as long as its account has a place."""
        if self.ledger.has_room(client, self.queue.knows):
            self.ledger.charge(client, cpu_seconds)
            if self._tidy is None and not self._stopping:
                self._forget_idle()

    def _conclude(self, job: Job, outcome: Outcome, outputs: Outputs | None = None) -> None:
        """The end of every job, whatever it came to: charge it and tell who waits."""
        self._charge(job, outcome.cpu_seconds + outcome.setup_cpu_seconds)
        # Said before anybody is woken: who waited for the job is told, too.
        job.expires_at = time.time() + self.store.kept_seconds(failed=outcome.verdict is not Verdict.ok)
        job.hints = hints_of(job, self._worker)
        job.finish(outcome, outputs)

    def _resume(self) -> None:
        self._retry = None
        self._dispatch()

    async def _run(self, job: Job) -> _NotTaken | None:
        """Run the job to its end; the refusal if the executor did not take it."""
        try:
            await self._execute(job)
        except asyncio.CancelledError:
            self._charge_unmeasured(job)
            self._fail(job, Verdict.cancelled, job.cancelled_as)
        except _NotTaken as refusal:
            return refusal
        except _Silent:
            self._worker = None
            self._fail(job, Verdict.executor_lost, "the executor does not answer")
        except ExecutorLost:
            self._worker = None
            self._fail(job, Verdict.executor_lost, "the executor stopped while the job ran")
        except BadIndex:
            self._fail(job, Verdict.internal_error, "the job's outputs could not be read")
        except Exception as error:  # one job's failure is never another's
            report(error)
            self._fail(job, Verdict.internal_error, "Sandrun could not run this job")
        return None

    def _ended(self, job: Job, task: asyncio.Task[_NotTaken | None]) -> None:
        # A callback, because a task that is cancelled before its first step runs no code at all.
        del self._running[job.job_id]
        self.queue.ended(job.request.client)
        if job.gpu is not None:
            self._gpus.give_back(job.gpu)
        if task.cancelled():
            self._fail(job, Verdict.cancelled, job.cancelled_as)
        elif (refusal := task.result()) is not None:
            # Not in the task: the job must not be started again before the task counts as ended.
            self._put_back(job, refusal)
        elif not job.is_finished:  # its packages are there: now it takes its turn
            self._queue_again(job)
        if job.is_finished:
            self.store.retain(job)
        self._dispatch()

    def _fail(self, job: Job, verdict: Verdict, detail: str) -> None:
        if not job.is_finished:
            wall = time.monotonic() - job.started_at if job.started_at is not None else 0.0
            self._conclude(
                job,
                Outcome(
                    verdict,
                    detail=detail,
                    cpu_seconds=job.cpu_seconds,
                    wall_seconds=wall,
                    setup_seconds=job.setup_seconds,
                    memory_peak_bytes=job.memory_bytes,
                    stdout_bytes=job.logs.seen_bytes[1],
                    stderr_bytes=job.logs.seen_bytes[2],
                    logs_truncated=job.logs.truncated,
                ),
            )

    def _put_back(self, job: Job, refusal: _NotTaken) -> None:
        now = time.monotonic()
        job.first_refused_at = job.first_refused_at or now
        waited, patience = now - job.first_refused_at, PATIENCE_SECONDS
        if refusal.unavailable:  # the next in line would wait in vain as well
            if now - self._unavailable_at > FORGIVEN_SECONDS:
                self._unavailable_since = now
            self._unavailable_at = now
            waited, patience = now - self._unavailable_since, UNAVAILABLE_SECONDS
        if self._stopping or job.deleted or waited > patience:
            self._fail(job, refusal.verdict, refusal.detail)
            return
        self._queue_again(job)
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._pause_seconds, self._resume)
            self._pause_seconds = min(2 * self._pause_seconds, LAST_RETRY_SECONDS)

    def _queue_again(self, job: Job) -> None:
        if self._stopping or job.deleted:
            self._fail(job, Verdict.cancelled, "cancelled")
            return
        job.transition(State.queued)
        self.queue.push_front(job)

    async def _execute(self, job: Job) -> None:
        request, manifest = job.request, job.request.manifest
        order = Order(manifest.entrypoint, tuple(manifest.args), dict(manifest.env), tuple(manifest.outputs))
        files = [Memfd.create("order", encode_order(order))]
        try:
            if manifest.stdin is not None:
                files.append(Memfd.create("stdin", manifest.stdin.encode()))
            if request.requirements is not None:
                files.append(Memfd.create("requirements", request.requirements.bundle))
            message = Execute(
                job_id=job.job_id,
                interpreter=request.interpreter,
                limits=request.limits,
                environment=manifest.environment,
                upload=request.kind,
                has_stdin=manifest.stdin is not None,
                warm=manifest.warm,
                buffered=manifest.buffered,
                manifest_sha256=request.manifest_sha256,
                encrypt_to=request.encrypt_to,
                gpu=job.gpu,
                installer=request.requirements.installer if request.requirements is not None else None,
                install_only=job.installs_first,
            )
            fds = (files[0].fileno(), job.upload.fileno(), *(file.fileno() for file in files[1:]))
            async with (
                asyncio.timeout(self._most_seconds(request)),
                self._executor.execute(message, fds) as connection,
            ):
                await self._consume(job, connection)
        except TimeoutError:
            raise ExecutorLost("the executor says nothing more") from None
        except ExecutorAway:
            self._worker = None
            raise _NotTaken(Verdict.executor_lost, "the executor is not there") from None
        finally:
            for file in files:
                file.close()

    def _most_seconds(self, request: JobRequest) -> float:
        """How long the executor may take over a job, with waiting for an installation and making one."""
        installing = 0.0 if request.requirements is None else 2 * self._settings.executor.install_seconds
        return request.limits.wall_seconds + installing + OVERDUE_SECONDS

    async def _consume(self, job: Job, connection: Connection) -> None:
        received = None if job.request.requirements is not None else await self._first_word(connection)
        while True:
            message, fds = received or await connection.receive()
            received = None
            try:
                match message:
                    case Started(setup_seconds=seconds):
                        self._unavailable_at = float("-inf")
                        job.setup_seconds = seconds
                        job.measured_at = time.monotonic()
                        job.release_upload()
                        self._pause_seconds = FIRST_RETRY_SECONDS
                    case Output(stream=stream, data=data):
                        job.logs.append(stream, data)
                    case Usage(cpu_seconds=seconds, memory_bytes=size):
                        self._charge(job, seconds)
                        job.memory_bytes = max(job.memory_bytes, size)
                    case Installed(setup_cpu_seconds=seconds):
                        self._charge(job, seconds)
                        job.has_packages(message)
                        return
                    case Finished():
                        self._finish(job, message, fds)
                        return
                    case Refused():
                        self._refused(job, message)
                        return
                    case _:
                        raise ExecutorLost("not an event of a job")
            finally:
                framing.close_all(fds)

    async def _first_word(self, connection: Connection) -> tuple[Event, list[int]]:
        """The first message on a job that needs no packages: a sandbox is there within seconds, or refused.

        Raises _Silent when it does not come and the executor does not answer others either.
        """
        silences = 0
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    return await connection.receive()
            except TimeoutError:
                pass
            try:
                await self._executor.describe()
                silences = 0
            except ExecutorLost:
                silences += 1
                if silences == SILENCES:
                    raise _Silent from None

    def _finish(self, job: Job, message: Finished, fds: list[int]) -> None:
        for output in message.logs:
            job.logs.append(output.stream, output.data)
        outputs = None
        if len(fds) == 2:
            index_fd, data_fd = fds.pop(), fds.pop()
            outputs = adopt(data_fd, index_fd, job.request.limits.output_files)
            job.reservation.charge(outputs.size_bytes)
        self._pause_seconds = FIRST_RETRY_SECONDS
        self.uses[job.request.manifest.environment] += 1
        job.receipt = message.receipt
        self._conclude(job, message.outcome, outputs)

    def _refused(self, job: Job, message: Refused) -> None:
        if message.reason in ("full", "stopping"):
            raise _NotTaken(Verdict.executor_lost, f"the executor is {message.reason}")
        self._worker = None  # what it said about itself was wrong
        if message.reason == "unavailable":
            raise _NotTaken(Verdict.setup_error, message.detail, unavailable=True)
        self._fail(job, Verdict.setup_error, message.detail or f"refused: {message.reason}")


def ready(worker: Description) -> Description:
    """The worker, if a job could run on it. Raises ApiError (503) with the cause."""
    if worker.problem:
        raise unavailable(f"{worker.problem[0].upper()}{worker.problem[1:]}.", 5, "sandbox")
    return worker
