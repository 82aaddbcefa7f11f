"""When no sandbox can be made jobs are refused with the cause, and run again once one can."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import machine
from support.executor import END_SECONDS, ExecutorProcess, RefusedError

WAITS = "import time; print('there', flush=True); time.sleep(3600)"


@pytest.fixture
def sabotaged() -> Iterator[ExecutorProcess]:
    """One whose sandboxes can be kept from being made (tests/support/weakened_executor.py)."""
    with ExecutorProcess(without=["sabotage"], parked=1, slots=2) as running:
        running.run_job("print(1)").ok()
        machine.eventually(lambda: running.describe().problem == "")
        yield running


def order(executor: ExecutorProcess) -> Path:
    return executor.folder / "sabotage"


def refused(executor: ExecutorProcess) -> RefusedError:
    """The refusal of a job that finds no parked sandbox."""
    for _ in range(executor.parked + 1):
        try:
            executor.run_job("print(1)").ok()
        except RefusedError as error:
            return error
    raise AssertionError("the jobs ran")


def assert_recovered(executor: ExecutorProcess) -> None:
    assert machine.eventually(lambda: executor.describe().problem == "", END_SECONDS)
    assert executor.run_job("print(2)").ok() == b"2\n"
    assert executor.describe(try_sandbox=True).problem == ""
    assert "sandboxes can be made again" in executor.log.read_text()


@pytest.mark.parametrize(
    ("how", "public", "logged"),
    [
        ("524", "the kernel has no room for one more system call filter", "net.core.bpf_jit_limit"),
        ("12", "the kernel has no room for one more system call filter", "net.core.bpf_jit_limit"),
        ("11", "the machine cannot start one more process", "kernel.pid_max"),
        ("hang", "a step of its making does not return", "step seccomp, process"),
    ],
)
def test_the_cause_is_told_and_passes(sabotaged: ExecutorProcess, how: str, public: str, logged: str) -> None:
    order(sabotaged).write_text(how)
    error = refused(sabotaged)
    assert error.reason == "unavailable"
    assert error.detail.endswith(public)
    description = sabotaged.describe(try_sandbox=True)
    assert description.problem == error.detail
    assert description.sandbox_failures > 0
    assert description.slots_retired == 0  # what hangs here can be killed
    assert logged in sabotaged.log.read_text()
    order(sabotaged).unlink()
    assert_recovered(sabotaged)


def test_a_job_goes_on_while_no_other_can_begin(sabotaged: ExecutorProcess) -> None:
    running = sabotaged.start_job(WAITS).printed(b"there")
    order(sabotaged).write_text("524")
    assert refused(sabotaged).reason == "unavailable"
    running.used()
    running.hang_up()
    order(sabotaged).unlink()
    assert_recovered(sabotaged)


def zygotes(executor: ExecutorProcess) -> set[int]:
    return {one.pid for one in machine.processes().values() if one.parent == executor.pid}


def test_a_zygote_that_does_not_answer_is_replaced_and_its_job_goes_on() -> None:
    with ExecutorProcess(parked=0, slots=2) as executor:
        running = executor.start_job(WAITS).printed(b"there")
        [stopped] = zygotes(executor)
        os.kill(stopped, signal.SIGSTOP)
        error = refused(executor)
        assert error.reason == "unavailable"
        assert "the process that forks sandboxes does not answer" in executor.log.read_text()
        assert machine.eventually(lambda: executor.describe().problem == "", END_SECONDS)
        assert executor.run_job("print(2)").ok() == b"2\n"
        assert stopped in zygotes(executor)  # its end would be that of the job
        running.hang_up()
        assert machine.eventually(lambda: stopped not in zygotes(executor), END_SECONDS)
