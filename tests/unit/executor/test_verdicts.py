"""The verdict for every state in which a job can end."""

import itertools
import signal

import pytest

from sandrun_executor.sandboxes.verdicts import Exit, Stop, judge
from sandrun_shared.jobs import Verdict

OK = Exit(0, False)
FAILED = Exit(3 << 8, False)
KILLED = Exit(signal.SIGKILL, False)


@pytest.mark.parametrize(
    ("stop", "exited", "oom_kills", "started", "failure", "verdict"),
    [
        (None, OK, 0, True, "", Verdict.ok),
        (None, Exit(0, True), 0, True, "", Verdict.ok),
        (None, FAILED, 0, True, "", Verdict.nonzero_exit),
        (None, Exit(3 << 8, True), 0, True, "", Verdict.disk_limit),
        (None, KILLED, 0, True, "", Verdict.signaled),
        (None, Exit(signal.SIGSEGV | 0x80, True), 0, True, "", Verdict.signaled),
        (None, Exit(signal.SIGXFSZ, False), 0, True, "", Verdict.disk_limit),
        (None, KILLED, 1, True, "", Verdict.memory_limit),
        (None, OK, 1, True, "", Verdict.memory_limit),
        (None, None, 1, False, "", Verdict.memory_limit),
        (None, None, 0, True, "", Verdict.internal_error),
        (None, None, 0, False, "", Verdict.setup_error),
        (None, None, 0, False, "step mounts 22", Verdict.setup_error),
        (None, None, 0, False, "step disk 28", Verdict.disk_limit),
        (None, None, 0, False, "step diskette 28", Verdict.setup_error),
        (None, Exit(1 << 8, False), 0, False, "step compile 1", Verdict.compile_error),
        (None, Exit(1 << 8, True), 0, False, "step compile 1", Verdict.disk_limit),
        (None, None, 0, False, "step compile 137", Verdict.compile_error),
        (None, Exit(1 << 8, False), 1, False, "step compile 1", Verdict.memory_limit),
        (Stop.wall, None, 0, False, "step compile 137", Verdict.wall_time_limit),
        (Stop.cancelled, OK, 1, True, "", Verdict.cancelled),
        (Stop.cancelled, None, 0, False, "step mounts 22", Verdict.cancelled),
        (Stop.wall, KILLED, 0, True, "", Verdict.wall_time_limit),
        (Stop.wall, None, 0, False, "", Verdict.wall_time_limit),
        (Stop.wall, KILLED, 1, True, "", Verdict.memory_limit),
        (Stop.cpu, KILLED, 0, True, "", Verdict.cpu_time_limit),
        (Stop.memory, KILLED, 0, True, "", Verdict.memory_limit),
    ],
)
def test_table(
    stop: Stop | None, exited: Exit | None, oom_kills: int, started: bool, failure: str, verdict: Verdict
) -> None:
    assert judge(stop, exited, oom_kills, started, failure) is verdict


def test_every_combination_has_a_verdict() -> None:
    for stop, exited, oom, started, failure in itertools.product(
        (None, *Stop),
        (None, OK, FAILED, KILLED),
        (0, 3),
        (False, True),
        ("", "step disk 28", "step compile 1", "step x 1"),
    ):
        assert isinstance(judge(stop, exited, oom, started, failure), Verdict)


@pytest.mark.parametrize("stop", Stop)
def test_every_stop_is_a_verdict(stop: Stop) -> None:
    assert Verdict(stop.value).value == stop.value


@pytest.mark.parametrize(
    ("status", "code", "number"),
    [
        (0, 0, None),
        (1 << 8, 1, None),
        (255 << 8, 255, None),
        (137 << 8, 137, None),
        (signal.SIGKILL, 137, 9),
        (signal.SIGSEGV | 0x80, 139, 11),  # with a core dump
        (signal.SIGRTMAX, 128 + 64, 64),
    ],
)
def test_wait_status(status: int, code: int, number: int | None) -> None:
    exited = Exit(status, False)
    assert (exited.code, exited.signal) == (code, number)
