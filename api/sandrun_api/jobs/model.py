"""A job in the api: what was asked, what state it is in, what remains of it."""

import asyncio
import enum
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from sandrun_api.admission.budget import Reservation
from sandrun_api.jobs.logs import JobLogs
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.outputs import Outputs
from sandrun_api.jobs.requirements import Requirements
from sandrun_shared.jobs import Limits, Outcome, UploadKind, Verdict
from sandrun_shared.memfds import Memfd
from sandrun_shared.protocol import Installed
from sandrun_shared.receipts import SignedStatement


class State(enum.StrEnum):
    """Where a job is in its life; why it ended is its verdict."""

    queued = "queued"
    running = "running"
    completed = "completed"
    failed = "failed"


_NEXT = {
    State.queued: {State.running, State.failed},
    # Back to the queue: the executor had no room after all, or has its packages now.
    State.running: {State.queued, State.completed, State.failed},
    State.completed: set[State](),
    State.failed: set[State](),
}


class IllegalTransition(Exception):
    """A bug: the state machine has no such step."""


@dataclass(frozen=True)
class JobRequest:
    """What a client asked for, checked."""

    client: str
    manifest: Manifest
    interpreter: str
    limits: Limits
    kind: UploadKind
    manifest_sha256: str  # in hex, of its canonical form
    job_hash: str
    gpus: tuple[int, ...] = ()  # devices it may have
    requirements: Requirements | None = None
    encrypt_to: bytes | None = None  # an X25519 public key


class Job:
    """One job; times are seconds of the monotonic clock."""

    def __init__(self, request: JobRequest, upload: Memfd, reservation: Reservation) -> None:
        self.job_id = secrets.token_hex(16)  # 128 bits; no dash, which commands would take for an option
        self.request = request
        self.upload = upload
        self.reservation = reservation
        self.state = State.queued
        self.logs = JobLogs(request.limits.log_bytes, reservation)
        self.outcome: Outcome | None = None
        self.outputs: Outputs | None = None
        self.receipt: SignedStatement | None = None
        self.finished = asyncio.Event()
        self.ended: Callable[[Job], None] = lambda _: None
        self.submitted_at = time.monotonic()
        self.waiting_since = 0  # nanoseconds, of the queue's clock
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.hints: tuple[tuple[str, str], ...] = ()  # what its client can do about its failure
        self.expires_at: float | None = None  # seconds since the epoch
        self.first_refused_at: float | None = None
        self.measured_at: float | None = None  # when the executor last said what is used
        self.setup_seconds = 0.0
        self.cpu_seconds = 0.0
        self.memory_bytes = 0
        self.deleted = False
        self.cancelled_as = "cancelled"  # the detail of its outcome, should it be
        self.gpu: int | None = None  # the device it has
        self.installed: Installed | None = None  # what came of installing apart from running
        self._readers = 0

    def has_packages(self, installed: Installed) -> None:
        """Its packages are there and paid for: what it uses is counted from zero when it runs."""
        self.installed = installed
        self.cpu_seconds = 0.0
        self.measured_at = self.first_refused_at = None

    def transition(self, state: State) -> None:
        """Move to the next state. Raises IllegalTransition, which is a bug of ours."""
        if state not in _NEXT[self.state]:
            raise IllegalTransition(f"{self.state} to {state}")
        self.state = state
        if state is State.running:
            self.started_at = time.monotonic()
        elif state is State.queued:
            self.started_at = None
        else:
            self.finished_at = time.monotonic()

    def finish(self, outcome: Outcome, outputs: Outputs | None = None) -> None:
        """End the job with its outcome; wakes everybody who waits for it."""
        self.transition(State.completed if outcome.verdict is Verdict.ok else State.failed)
        self.outcome = outcome
        self.outputs = outputs
        self.release_upload()
        self.logs.close()
        self.finished.set()
        self.ended(self)

    @property
    def needs_device(self) -> bool:
        """Whether it cannot be started without a device."""
        wish = self.request.manifest.gpu
        return wish is not None and wish.required and not self.installs_first

    @property
    def is_finished(self) -> bool:
        """Whether the job has its outcome."""
        return self.outcome is not None

    @property
    def queued_seconds(self) -> float:
        """How long the job waited, or has waited so far."""
        until = self.started_at or self.finished_at or time.monotonic()
        return until - self.submitted_at - (self.installed.setup_seconds if self.installed else 0.0)

    @property
    def installs_first(self) -> bool:
        """Whether its packages are yet to be installed; until then no device is held for it."""
        return bool(self.request.gpus) and self.request.requirements is not None and self.installed is None

    def release_upload(self) -> None:
        """Forget the upload, which nobody needs once the job runs."""
        size = self.upload.size
        self.upload.close()
        self.upload.size = 0
        self.reservation.charge(-size)

    def close(self) -> None:
        """Forget everything."""
        self.deleted = True
        self.release_upload()
        self.logs.withdraw()
        self._release()
        self.finished.set()

    @property
    def is_read(self) -> bool:
        """Whether somebody is being sent the logs or outputs."""
        return self._readers > 0

    def lease(self) -> Callable[[], None]:
        """Keep logs and outputs, and their place in the budget, until the result is called, once."""
        self._readers += 1

        def end() -> None:
            self._readers -= 1
            if self.deleted:
                self._release()

        return end

    def _release(self) -> None:
        if self._readers:
            return
        self.logs.forget()
        if self.outputs is not None:
            self.outputs.close()
            self.outputs = None
        self.reservation.close()
