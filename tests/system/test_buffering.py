"""A program's output is sent at once, unless buffering was requested."""

from collections.abc import Iterator

import msgspec
import pytest

from support.executor import QUICK, ExecutorProcess

STOPS = msgspec.structs.replace(QUICK, wall_seconds=1.0)
WAITS = "import sys, time\nprint('first')\nsys.stdout.write('no newline')\ntime.sleep(60)\n"
CHILD = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import time; print(1); time.sleep(60)'])\n"
# Each prints something without a newline, and is not at its end yet.
WAITING = {
    "c": '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("live"); sleep(60); }\n',
    "cpp": '#include <cstdio>\n#include <unistd.h>\nint main() { std::printf("live"); sleep(60); }\n',
    "ruby": "print 'live'\nsleep 60\n",
    "perl": "print 'live'; sleep 60;\n",
}
HELD_BACK = (*WAITING, "python3")
WAITING["python3"] = "import time\nprint('live', end='')\ntime.sleep(60)\n"
# These hold nothing back, whatever they are told.
WAITING["bash"] = "printf live; sleep 60\n"
WAITING["node"] = "process.stdout.write('live'); setTimeout(() => {}, 60000);\n"
WAITING["php"] = "<?php echo 'live'; sleep(60);\n"
WAITING["Rscript"] = "cat('live'); Sys.sleep(60)\n"


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_python_is_live(executor: ExecutorProcess, warm: bool) -> None:
    job = executor.start_job(WAITS, warm=warm).printed(b"first\nno newline")
    assert job.result is None
    job.hang_up()


def test_python_started_by_a_program_is_live(executor: ExecutorProcess) -> None:
    executor.start_job(CHILD).printed(b"1\n").hang_up()


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_what_was_printed_before_the_time_was_over_is_there(executor: ExecutorProcess, warm: bool) -> None:
    result = executor.run_job(WAITS, warm=warm, limits=STOPS)
    assert (result.outcome.verdict, result.stdout) == ("wall_time_limit", b"first\nno newline")


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_buffered_program_holds_back(executor: ExecutorProcess, warm: bool) -> None:
    result = executor.run_job(WAITS, warm=warm, limits=STOPS, buffered=True)
    assert (result.outcome.verdict, result.stdout) == ("wall_time_limit", b"")


@pytest.mark.parametrize("interpreter", WAITING)
def test_every_language_can_be_live(executor: ExecutorProcess, interpreter: str) -> None:
    names = {"c": "main.c", "cpp": "main.cpp"}
    job = executor.start_job(
        WAITING[interpreter], names.get(interpreter, "main"), interpreter, buffered=False
    )
    job.printed(b"live").hang_up()


@pytest.fixture(scope="module")
def graceless(_root: None) -> Iterator[ExecutorProcess]:
    """Kills at once: some interpreters write out what they held back when they are asked to end."""
    with ExecutorProcess(grace_seconds=0) as made:
        yield made


@pytest.mark.parametrize("interpreter", HELD_BACK)
def test_buffered_programs_hold_back(graceless: ExecutorProcess, interpreter: str) -> None:
    """Else the test above shows nothing."""
    names = {"c": "main.c", "cpp": "main.cpp"}
    limits = msgspec.structs.replace(QUICK, wall_seconds=3.0)
    result = graceless.run_job(
        WAITING[interpreter], names.get(interpreter, "main"), interpreter, buffered=True, limits=limits
    )
    assert (result.outcome.verdict, result.stdout) == ("wall_time_limit", b"")


def test_a_variable_of_the_clients_decides(executor: ExecutorProcess) -> None:
    program = "import os, sys\nprint(os.environ.get('PYTHONUNBUFFERED'), sys.stdout.write_through)\n"
    said = {
        value: executor.run_job(program, env={"PYTHONUNBUFFERED": value}).ok() for value in ("", "1", "yes")
    }
    assert said == {"": b" False\n", "1": b"1 True\n", "yes": b"yes True\n"}
    asked = executor.run_job(program, env={"PYTHONUNBUFFERED": "1"}, buffered=True)
    assert asked.ok() == b"1 True\n"
    assert executor.run_job(program, buffered=True).ok() == b"None False\n"
