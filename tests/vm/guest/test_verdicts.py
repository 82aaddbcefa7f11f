"""A job of each verdict on cgroup v2, through the executor's socket and over HTTP."""

from dataclasses import dataclass, field

import httpx
import pytest

from sandrun_shared.jobs import Limits
from support import installed, machine
from support.installed import BACK_SECONDS, EXECUTOR, URL, Installed

MIB = 1 << 20
executor = Installed()


@dataclass(frozen=True)
class Case:
    """A program, what it is limited to, and what must come of it."""

    program: str
    limits: dict[str, float] = field(default_factory=dict)  # as /run names them
    exit_code: int | None = None


HUNGRY = "x = []\nwhile True: x.append(bytearray(b'1') * (1 << 20))"
CASES = {
    "ok": Case("print('fine')", exit_code=0),
    "nonzero_exit": Case("raise SystemExit(3)", exit_code=3),
    "signaled": Case("import os; os.kill(os.getpid(), 11)", exit_code=139),
    "wall_time_limit": Case("import time; time.sleep(600)", {"timeout": 2}),
    "cpu_time_limit": Case("while True: pass", {"cpu_seconds": 1}),
    "memory_limit": Case(HUNGRY, {"memory_mb": 48}, exit_code=137),
    "disk_limit": Case("import os\nwith open('big', 'wb') as f:\n while True: f.write(bytes(1 << 20))"),
}


def limits_of(case: Case) -> Limits:
    return Limits(
        wall_seconds=case.limits.get("timeout", 200.0),
        memory_bytes=int(case.limits.get("memory_mb", 96)) * MIB,
        disk_bytes=16 * MIB,
        cpu_seconds=case.limits.get("cpu_seconds"),
    )


@pytest.mark.parametrize("verdict", CASES)
def test_through_the_socket(verdict: str) -> None:
    case = CASES[verdict]
    outcome = executor.run_job(case.program, limits=limits_of(case)).outcome
    assert outcome.verdict == verdict, outcome
    if case.exit_code is not None:
        assert outcome.exit_code == case.exit_code
    assert 0 < outcome.memory_peak_bytes <= limits_of(case).memory_bytes
    assert outcome.cpu_seconds > 0


@pytest.mark.parametrize("verdict", CASES)
def test_over_http(verdict: str) -> None:
    case = CASES[verdict]
    answer = installed.post({"code": case.program, **case.limits})
    assert answer["verdict"] == verdict, answer
    if case.exit_code is not None:
        assert answer["exit_code"] == case.exit_code


def test_memory_of_a_child_and_of_files_counts_too() -> None:
    child = f"import os, time\nif os.fork() == 0:\n exec({HUNGRY!r})\ntime.sleep(600)"
    files = "import os\nwhile True: os.write(os.memfd_create('x'), bytes(1 << 20))"
    for program in (child, files):
        outcome = executor.run_job(program, limits=limits_of(CASES["memory_limit"])).outcome
        assert (outcome.verdict, outcome.signal) == ("memory_limit", 9)
        assert outcome.memory_peak_bytes > 40 * MIB


def test_a_neighbour_of_one_out_of_memory_goes_on() -> None:
    neighbour = executor.start_job("print('here', flush=True)\ninput()\nprint('still')", stdin=b"").printed(
        b"here"
    )
    assert executor.run_job(HUNGRY, limits=limits_of(CASES["memory_limit"])).outcome.verdict == "memory_limit"
    assert b"EOFError" in neighbour.wait().stderr  # its own end, not the killer's


def test_processes_are_limited() -> None:
    program = (
        "import os, signal\nn = 0\ntry:\n while True:\n  if os.fork() == 0: signal.pause()\n  n += 1\n"
        "except BlockingIOError: print(n, flush=True)\n"
    )
    result = executor.run_job(program, limits=Limits(wall_seconds=200.0, memory_bytes=96 * MIB, processes=9))
    assert result.ok() == b"8\n"


def test_cancelled_job_is_gone() -> None:
    job = executor.start_job("import time; print('up', flush=True); time.sleep(600)").printed(b"up")
    groups = set(installed.cgroup(EXECUTOR).glob("sandrun-*/job-*"))
    job.hang_up()
    # Its own group, and not only its processes.
    assert machine.eventually(
        lambda: not groups <= set(installed.cgroup(EXECUTOR).glob("sandrun-*/job-*")), BACK_SECONDS
    )
    installed.hello(executor)


def test_server_says_that_it_is_well() -> None:
    answer = httpx.get(f"{URL}/health", timeout=BACK_SECONDS, trust_env=False)
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
