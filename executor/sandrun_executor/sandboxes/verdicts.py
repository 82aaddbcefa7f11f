"""Verdicts: why a job ended, derived from the wait status and the kernel's counters."""

import enum
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from sandrun_sandbox.layout import REASONS
from sandrun_shared.jobs import MAX_COUNT, LeftOut, LeftOutReason, Verdict

_REASONS = tuple(map(LeftOutReason, REASONS))


class Stop(enum.Enum):
    """Why the executor ended a job that had not ended by itself."""

    cancelled = "cancelled"
    wall = "wall_time_limit"
    cpu = "cpu_time_limit"
    memory = "memory_limit"


@dataclass(frozen=True)
class Exit:
    """How the job's process ended: its wait status, and whether its folders were full then (wait(2))."""

    status: int
    disk_full: bool

    @property
    def code(self) -> int:
        """Exit code; 128+n for signal n."""
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code

    @property
    def signal(self) -> int | None:
        """Number of the signal that ended it, if one did."""
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None


def left_out_of(counts: Iterable[int]) -> tuple[LeftOut, ...]:
    """Decode what a collector reports (messages.Collected)."""
    said = zip(_REASONS, counts, strict=True)
    return tuple(LeftOut(reason, min(count, MAX_COUNT)) for reason, count in said if count)


def judge(stop: Stop | None, exited: Exit | None, oom_kills: int, started: bool, failure: str) -> Verdict:
    """Judge by what the executor did, then by the memory counters, then by how the process ended.

    exited is None if PID 1 died before it could report; failure names the set-up step that failed.
    """
    if stop is Stop.cancelled:
        return Verdict.cancelled
    if oom_kills:
        return Verdict.memory_limit
    if stop is not None:
        return Verdict(stop.value)
    if not started:
        return _of_failure(exited, failure)
    if exited is None:
        return Verdict.internal_error
    return _of_exit(exited)


def _of_failure(exited: Exit | None, failure: str) -> Verdict:
    if failure.startswith("step disk "):
        return Verdict.disk_limit
    if failure.startswith("step compile "):
        return Verdict.disk_limit if exited is not None and exited.disk_full else Verdict.compile_error
    return Verdict.setup_error


def _of_exit(exited: Exit) -> Verdict:
    if exited.signal is not None:
        return Verdict.disk_limit if exited.signal == signal.SIGXFSZ else Verdict.signaled
    if exited.code == 0:
        return Verdict.ok
    # The kernel does not count ENOSPC, so a failed program with full folders counts as out of disk.
    return Verdict.disk_limit if exited.disk_full else Verdict.nonzero_exit
