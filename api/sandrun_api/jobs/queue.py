"""The waiting line: each client in turn, batch jobs only when no normal job waits."""

from collections import Counter, OrderedDict, deque

from sandrun_api.jobs.model import Job


class FairQueue:
    """Round-robin over clients; a client with enough jobs running is passed over. 0 is unlimited."""

    def __init__(self, running_per_client: int) -> None:
        self._per_client = running_per_client
        self._lines: dict[str, OrderedDict[str, deque[Job]]] = {
            "normal": OrderedDict(),
            "batch": OrderedDict(),
        }
        self._waiting: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def waiting(self, client: str) -> int:
        """Jobs of the client that wait."""
        return self._waiting[client]

    def running(self, client: str) -> int:
        """Jobs of the client that run."""
        return self._running[client]

    @property
    def running_total(self) -> int:
        """Jobs that run."""
        return self._running.total()

    def push(self, job: Job) -> None:
        """Put a job at the end of its client's line."""
        self._line(job).append(job)
        self._count(job, 1)

    def push_front(self, job: Job) -> None:
        """Put back a job that could not start after all; its client is next."""
        self._line(job).appendleft(job)
        self._lines[job.request.manifest.priority].move_to_end(job.request.client, last=False)
        self._count(job, 1)

    def pop(self) -> Job | None:
        """The next job to run, counted as running; None if nobody waits or may run."""
        for lines in self._lines.values():
            for client, line in lines.items():
                if self._per_client and self._running[client] >= self._per_client:
                    continue
                job = line.popleft()
                lines.move_to_end(client)
                self._after_removal(job)
                self._running[client] += 1
                return job
            if lines:
                return None  # a normal job waits: batch jobs do too
        return None

    def ended(self, client: str) -> None:
        """A job of the client runs no more."""
        self._running[client] -= 1
        if self._running[client] <= 0:
            del self._running[client]

    def remove(self, job: Job) -> bool:
        """Take out a waiting job; False if it does not wait."""
        line = self._lines[job.request.manifest.priority].get(job.request.client)
        if line is None or job not in line:
            return False
        line.remove(job)
        self._after_removal(job)
        return True

    def position(self, job: Job) -> int:
        """1 for the job that starts next, if every client may run; 0 for one that does not wait."""
        priority = job.request.manifest.priority
        lines = self._lines[priority]
        own = lines.get(job.request.client)
        if own is None or job not in own:
            return 0
        index = own.index(job)
        before = sum(len(line) for line in self._lines["normal"].values()) if priority == "batch" else 0
        rounds = index + 1  # of turns each client in front of ours has had by then
        for client, line in lines.items():
            if client == job.request.client:
                rounds = index
            else:
                before += min(len(line), rounds)
        return before + index + 1

    def drain(self) -> list[Job]:
        """Take out everybody."""
        jobs = [job for lines in self._lines.values() for line in lines.values() for job in line]
        for lines in self._lines.values():
            lines.clear()
        self._waiting.clear()
        self._length = 0
        return jobs

    def _line(self, job: Job) -> deque[Job]:
        return self._lines[job.request.manifest.priority].setdefault(job.request.client, deque())

    def _count(self, job: Job, change: int) -> None:
        client = job.request.client
        self._length += change
        self._waiting[client] += change
        if not self._waiting[client]:
            del self._waiting[client]

    def _after_removal(self, job: Job) -> None:
        lines = self._lines[job.request.manifest.priority]
        if not lines[job.request.client]:
            del lines[job.request.client]
        self._count(job, -1)
