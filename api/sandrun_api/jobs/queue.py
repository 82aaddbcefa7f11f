"""The waiting line: each client in turn, batch jobs only when no normal job waits, but not for ever."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from sandrun_api.admission.quotas import SECOND, Clock, clock
from sandrun_api.edge.clients import is_exempt, network_of
from sandrun_api.jobs.model import Job

Lines = OrderedDict[str, deque[Job]]


class FairQueue:
    """Round-robin over clients, least recently served first; FIFO within a client.

    A client with enough jobs running (0: any number) is passed over unless it is exempt, one that `hold`
    names nanoseconds for, and one whose next job is not `ready`: what that waits for is another job's end. A
    batch job that waited for batch_patience_seconds starts before normal jobs; of two starts in a row only
    one is such a job's while normal jobs wait.
    """

    def __init__(
        self,
        running_per_client: int,
        *,
        batch_patience_seconds: float = 60.0,
        hold: Callable[[str], int] = lambda _: 0,
        ready: Callable[[Job], bool] = lambda _: True,
        now: Clock = clock,
    ) -> None:
        self._per_client = running_per_client
        self._patience = round(batch_patience_seconds * SECOND)
        self._hold = hold
        self._ready = ready
        self._now = now
        self._normal: Lines = OrderedDict()
        self._batch: Lines = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._turns: dict[str, int] = {}  # number of the last turn of clients that wait or run
        self._turn = 0
        self._last_was_overdue = False
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def waiting(self, client: str) -> int:
        """Jobs of the client that wait."""
        return self._waiting[client]

    def running(self, client: str) -> int:
        """Jobs of the client that run."""
        return self._running[client]

    def knows(self, client: str) -> bool:
        """Whether a job of the client waits or runs."""
        return client in self._waiting or client in self._running

    def knows_network(self, network: str) -> bool:
        """Whether a job of the network's clients waits or runs."""
        return any(network_of(client) == network for client in (*self._waiting, *self._running))

    def waiting_of(self, network: str) -> int:
        """Jobs of the network's clients that wait."""
        return sum(count for client, count in self._waiting.items() if network_of(client) == network)

    def running_of(self, network: str) -> int:
        """Jobs of the network's clients that run."""
        return sum(count for client, count in self._running.items() if network_of(client) == network)

    @property
    def running_total(self) -> int:
        """Jobs that run."""
        return self._running.total()

    def push(self, job: Job) -> None:
        """Put a job at the end of its client's line."""
        job.waiting_since = self._now()
        self._line(job).append(job)
        self._count(job, 1)

    def push_front(self, job: Job) -> None:
        """Put back a job that could not start after all; its client is next."""
        self._line(job).appendleft(job)
        self._turns[job.request.client] = -self._next_turn()
        self._count(job, 1)

    def pop(self) -> Job | None:
        """The next job to run, counted as running; None if nobody waits or may run."""
        lines = self._normal or self._batch  # a normal job waits: batch jobs do too
        client = next((known for known in self._in_turn(lines) if self._may_start(lines[known][0])), None)
        overdue = self._overdue()
        if overdue is not None and (client is None or not (self._last_was_overdue and self._normal)):
            lines, client = self._batch, overdue
        self._last_was_overdue = lines is self._batch
        if client is None:
            return None
        job = lines[client][0]
        self._take(job)
        self._turns[client] = self._next_turn()
        self._running[client] += 1
        return job

    def pause(self) -> float | None:
        """Seconds after which somebody may run who may not now, without a job ending; None if nobody may."""
        now = self._now()
        dues = [job.waiting_since + self._patience for job in self._heads(self._batch)]
        times = [due - now for due in dues if due > now]
        times += [hold for client in self._waiting if (hold := self._hold(client))]
        return min(times) / SECOND if times else None

    def ended(self, client: str) -> None:
        """A job of the client runs no more."""
        self._running[client] -= 1
        if self._running[client] <= 0:
            del self._running[client]
            self._forget(client)

    def remove(self, job: Job) -> bool:
        """Take out a waiting job; False if it does not wait."""
        if job not in self._lines(job).get(job.request.client, ()):
            return False
        self._take(job)
        self._forget(job.request.client)
        return True

    def position(self, job: Job) -> int:
        """1 for the job that starts next, if every client may run; 0 for one that does not wait."""
        lines = self._lines(job)
        own = lines.get(job.request.client)
        if own is None or job not in own:
            return 0
        index = own.index(job)
        before = sum(len(line) for line in self._normal.values()) if lines is self._batch else 0
        rounds = index + 1  # of turns each client in front of ours has had by then
        for client in self._in_turn(lines):
            if client == job.request.client:
                rounds = index
            else:
                before += min(len(lines[client]), rounds)
        return before + index + 1

    def drain(self) -> list[Job]:
        """Take out everybody."""
        jobs = [job for lines in (self._normal, self._batch) for line in lines.values() for job in line]
        self._normal.clear()
        self._batch.clear()
        self._waiting.clear()
        self._turns.clear()
        self._length = 0
        return jobs

    def _lines(self, job: Job) -> Lines:
        return self._batch if job.request.manifest.priority == "batch" else self._normal

    def _line(self, job: Job) -> deque[Job]:
        return self._lines(job).setdefault(job.request.client, deque())

    def _in_turn(self, lines: Lines) -> list[str]:
        return sorted(lines, key=lambda client: self._turns.get(client, 0))

    def _may_start(self, job: Job) -> bool:
        client = job.request.client
        if self._per_client and self._running[client] >= self._per_client and not is_exempt(client):
            return False
        return not self._hold(client) and self._ready(job)

    def _heads(self, lines: Lines) -> list[Job]:
        return [line[0] for line in lines.values()]

    def _overdue(self) -> str | None:
        """The client of the batch job that waited longest, if that is long enough."""
        latest = self._now() - self._patience
        heads = [
            job for job in self._heads(self._batch) if job.waiting_since <= latest and self._may_start(job)
        ]
        return min(heads, key=lambda job: job.waiting_since).request.client if heads else None

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _take(self, job: Job) -> None:
        lines, client = self._lines(job), job.request.client
        lines[client].remove(job)
        if not lines[client]:
            del lines[client]
        self._count(job, -1)

    def _forget(self, client: str) -> None:
        if not self.knows(client):
            self._turns.pop(client, None)

    def _count(self, job: Job, change: int) -> None:
        client = job.request.client
        self._length += change
        self._waiting[client] += change
        if not self._waiting[client]:
            del self._waiting[client]
