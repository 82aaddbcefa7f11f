"""Each limit ends a job, or what it does, with its own verdict; nothing else suffers."""

import msgspec
import pytest

from sandrun_shared.jobs import Limits
from support import machine
from support.bombs import BOMBS, SMALL, Bomb
from support.executor import QUICK, ExecutorProcess, RefusedError

LIMIT_SLACK_SECONDS = 2.0


def _check(bomb: Bomb, outcome: object, stdout: bytes) -> None:
    assert outcome.verdict in bomb.verdicts, (outcome, stdout)
    assert bomb.says in stdout
    assert outcome.wall_seconds < bomb.limits.wall_seconds + LIMIT_SLACK_SECONDS


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(executor: ExecutorProcess, name: str) -> None:
    """While the bomb runs, another job is not harmed, nor is one after it."""
    bomb = BOMBS[name]
    job = executor.start_job(bomb.program, "main", bomb.interpreter, limits=bomb.limits)
    neighbour = executor.run_job("echo hello", "main", "bash")
    result = job.wait()
    assert neighbour.ok() == b"hello\n"
    _check(bomb, result.outcome, result.stdout)
    assert executor.run_job("print('after')").ok() == b"after\n"


def test_the_memory_verdict_has_a_peak(executor: ExecutorProcess) -> None:
    outcome = executor.run_job(BOMBS["heap"].program, limits=SMALL).outcome
    assert outcome.verdict == "memory_limit"
    assert 0.8 * SMALL.memory_bytes <= outcome.memory_peak_bytes <= 1.1 * SMALL.memory_bytes


def test_the_cpu_verdict_counts_all_processes(executor: ExecutorProcess) -> None:
    outcome = executor.run_job(
        BOMBS["cpu of children"].program, limits=BOMBS["cpu of children"].limits
    ).outcome
    assert outcome.verdict == "cpu_time_limit"
    assert 0.5 <= outcome.cpu_seconds < 2.0


def test_an_endless_print_is_counted_and_the_job_goes_on(executor: ExecutorProcess) -> None:
    limits = msgspec.structs.replace(QUICK, log_bytes=1 << 20)
    program = (
        "import sys\nfor n in range(300): sys.stdout.write('x' * 65535 + '\\n')\nsys.stderr.write('e')\n"
    )
    result = executor.run_job(program + "open('done', 'w').write('yes')", limits=limits)
    result.ok()
    assert result.outcome.stdout_bytes == 300 * 65536
    assert result.outcome.stderr_bytes == 1
    assert result.outcome.logs_truncated
    assert len(result.stdout) + len(result.stderr) == 1 << 20
    assert result.outputs == {"done": b"yes"}


def test_yes_for_ever_ends_at_the_wall(executor: ExecutorProcess) -> None:
    limits = msgspec.structs.replace(QUICK, log_bytes=1 << 20, wall_seconds=1.0)
    result = executor.run_job("yes", "main", "bash", limits=limits)
    assert result.outcome.verdict == "wall_time_limit"
    assert result.outcome.logs_truncated
    assert len(result.stdout) == 1 << 20
    assert result.outcome.stdout_bytes > 1 << 20


def test_output_of_a_killed_job_is_kept(executor: ExecutorProcess) -> None:
    limits = Limits(wall_seconds=0.5)
    program = "import time\nopen('part', 'w').write('kept')\nprint('so far', flush=True)\ntime.sleep(60)"
    result = executor.run_job(program, limits=limits)
    assert result.outcome.verdict == "wall_time_limit"
    assert result.stdout == b"so far\n"
    assert result.outputs == {"part": b"kept"}


def test_the_file_size_limit_is_the_disk_limit(executor: ExecutorProcess) -> None:
    limits = msgspec.structs.replace(QUICK, disk_bytes=4 << 20)
    program = "import os\nos.truncate(os.open('x', os.O_CREAT | os.O_RDWR), 8 << 20)"
    result = executor.run_job(program, "main", warm=False, limits=limits)
    assert result.outcome.verdict in ("disk_limit", "nonzero_exit")
    result = executor.run_job("truncate -s 8M x", "main", "bash", limits=limits)
    assert result.outcome.verdict in ("disk_limit", "nonzero_exit")
    assert (
        executor.run_job("exec truncate -s 8M x", "main", "bash", limits=limits).outcome.verdict
        == "disk_limit"
    )


def test_the_cpu_share_is_enforced(executor: ExecutorProcess) -> None:
    limits = msgspec.structs.replace(QUICK, cpu_cores=0.25, wall_seconds=2.0)
    outcome = executor.run_job("while True: pass", limits=limits).outcome
    assert outcome.verdict == "wall_time_limit"
    assert outcome.cpu_seconds < 0.25 * 2.0 + 0.3


def test_all_bombs_at_once_leave_a_hello_alone(executor: ExecutorProcess) -> None:
    names = ("heap", "fork for ever", "cpu", "disk", "inodes", "descriptors", "memfd", "deaf")
    jobs = [
        executor.start_job(BOMBS[name].program, "main", BOMBS[name].interpreter, limits=BOMBS[name].limits)
        for name in names
    ]
    for _ in range(3):
        assert executor.run_job("print('hello')").ok() == b"hello\n"
    for name, job in zip(names, jobs, strict=True):
        result = job.wait()
        _check(BOMBS[name], result.outcome, result.stdout)


CLEANS_UP = """
import signal, sys, time
def clean(*_):
    open('cleaned', 'w').write('yes')
    print('cleaned')
    sys.exit(0)
signal.signal(signal.SIGTERM, clean)
print('ready')
time.sleep(60)
"""
DEAF = """
trap 'echo deaf' TERM
(trap '' TERM; sleep 61) &
while :; do sleep 1 & wait; done
"""
SECOND = msgspec.structs.replace(QUICK, wall_seconds=1.0)


def test_a_program_may_clean_up_when_its_time_is_over(executor: ExecutorProcess) -> None:
    result = executor.run_job(CLEANS_UP, limits=SECOND)
    assert (result.outcome.verdict, result.outcome.exit_code) == ("wall_time_limit", 0)
    assert result.stdout == b"ready\ncleaned\n"
    assert result.outputs == {"cleaned": b"yes"}
    assert result.outcome.wall_seconds < SECOND.wall_seconds + LIMIT_SLACK_SECONDS


def test_every_process_is_asked_to_end(executor: ExecutorProcess) -> None:
    program = "(trap 'echo child; exit' TERM; sleep 60 & wait) & trap 'echo parent' TERM; wait; wait"
    result = executor.run_job(program, "main", "bash", limits=SECOND)
    assert result.outcome.verdict == "wall_time_limit"
    assert sorted(result.stdout.split()) == [b"child", b"parent"]


def test_a_program_that_does_not_end_is_killed(executor: ExecutorProcess) -> None:
    result = executor.run_job(DEAF, "main", "bash", limits=SECOND)
    assert result.outcome.verdict == "wall_time_limit"
    assert result.outcome.signal in (9, None)  # None: PID 1 was ended before it could tell
    assert result.stdout == b"deaf\n"


def test_without_a_grace_nothing_is_asked() -> None:
    with ExecutorProcess(grace_seconds=0) as executor:
        result = executor.run_job(CLEANS_UP, limits=SECOND)
    assert (result.outcome.verdict, result.outcome.signal) == ("wall_time_limit", 9)
    assert result.stdout == b"ready\n"


def test_a_client_that_leaves_during_the_grace_ends_it() -> None:
    with ExecutorProcess(grace_seconds=60, slots=1) as executor:
        job = executor.start_job(DEAF, "main", "bash", limits=SECOND).printed(b"deaf")
        job.hang_up()

        def is_free() -> bool:
            try:
                return executor.run_job("print(1)").ok() == b"1\n"
            except RefusedError:
                return False

        assert machine.eventually(is_free)


FORKS = """import os
with open('kept', 'w') as file: file.write('yes')
while True:
    try:
        os.fork()
    except BlockingIOError:
        pass
"""


def test_hundreds_that_fork_for_ever_do_not_cost_the_outputs() -> None:
    """At the end of the wall time PID 1 hardly gets a turn among them, and is not ended for that."""
    limits = msgspec.structs.replace(SECOND, wall_seconds=2.0, processes=512, output_files=2)
    with ExecutorProcess(grace_seconds=0) as executor:
        for _ in range(3):
            result = executor.run_job(FORKS, limits=limits)
            assert (result.outcome.verdict, result.outcome.exit_code) == ("wall_time_limit", 137)
            assert result.outputs == {"kept": b"yes"}
            assert not result.outcome.outputs_truncated
