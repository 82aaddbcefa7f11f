"""The jobs there are, and when they are forgotten."""

import asyncio
from collections.abc import Callable, Iterator

from sandrun_api.admission.budget import MemoryBudget
from sandrun_api.jobs.model import Job, State
from sandrun_shared.settings import Api


class JobStore:
    """Jobs by id; the id is unguessable and the only credential. `forgotten` is told of each that goes."""

    def __init__(
        self, settings: Api, budget: MemoryBudget, forgotten: Callable[[str], None] = lambda _: None
    ) -> None:
        self._settings = settings
        self._forgotten = forgotten
        self._budget = budget
        self._jobs: dict[str, Job] = {}
        self._finished: dict[str, asyncio.TimerHandle] = {}  # in the order they finished
        self.evictions = 0
        budget.relieve = self._relieve

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def add(self, job: Job) -> None:
        """Keep a new job."""
        self._jobs[job.job_id] = job

    def get(self, job_id: str) -> Job | None:
        """The job, if it is still known."""
        return self._jobs.get(job_id)

    def kept_seconds(self, *, failed: bool) -> float:
        """How long a finished job is kept."""
        return self._settings.failed_retention_seconds if failed else self._settings.retention_seconds

    def retain(self, job: Job) -> None:
        """Start the time after which a finished job is forgotten."""
        if job.job_id not in self._jobs:
            return
        seconds = self.kept_seconds(failed=job.state is State.failed)
        loop = asyncio.get_running_loop()
        self._finished[job.job_id] = loop.call_later(seconds, self.remove, job.job_id)
        if self._budget.under_pressure:
            self._relieve()

    def remove(self, job_id: str) -> None:
        """Forget a job and everything it holds; harmless for one that is gone."""
        timer = self._finished.pop(job_id, None)
        if timer is not None:
            timer.cancel()
        job = self._jobs.pop(job_id, None)
        if job is not None:
            job.close()
            self._forgotten(job_id)

    def close(self) -> None:
        """Forget everything."""
        for job_id in list(self._jobs):
            self.remove(job_id)

    def _relieve(self) -> None:
        for job_id in list(self._finished):
            if not self._budget.under_pressure:
                return
            if not self._jobs[job_id].is_read:  # its bytes would stay: let it be read
                self.evictions += 1
                self.remove(job_id)
