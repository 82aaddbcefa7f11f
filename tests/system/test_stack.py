"""A stack may grow up to the job's memory, within the executor's hard limit."""

import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_executor import preflight
from support.executor import PATIENT, PYTHON, ExecutorProcess

MEMORY = PATIENT.memory_bytes
HARD = resource.getrlimit(resource.RLIMIT_STACK)[1]
# Whether a job may have more than this process: where it may not, `sandrun doctor` says so.
OPEN = preflight.stack(Path("/proc/self/limits"), Path("/proc/self/status")).ok
LOWER = 16 << 20  # bytes: less than DEEP takes
LIMITED = ["setpriv", "--bounding-set=-sys_resource", "--", "prlimit", f"--stack={8 << 20}:{LOWER}", "--"]
DEEP = """
#include <stdio.h>
#include <sys/resource.h>
__attribute__((noinline)) int deep(void) {
    volatile char a[64 << 20];
    for (long i = 0; i < sizeof a; i += 4096) a[i] = 7;
    return a[4096 * 1000];
}
int main(void) {
    struct rlimit r;
    getrlimit(RLIMIT_STACK, &r);
    printf("%ld\\n", (long)r.rlim_cur);
    fflush(stdout);
    printf("%d\\n", deep());
}
"""
ENDLESS = """
int f(volatile char *p) { volatile char a[4096]; a[0] = *p; return f(a) + a[0]; }
int main(void) { char c = 1; return f(&c); }
"""
SET = "import resource as r\nprint(r.getrlimit(r.RLIMIT_STACK)[0], flush=True)\nr.setrlimit(r.RLIMIT_STACK, (256 << 20,) * 2)"
UNLIMITED = "ulimit -s; ulimit -s unlimited && ulimit -s"


@pytest.fixture(scope="module")
def limited() -> Iterator[ExecutorProcess]:
    """An executor that inherits a hard limit and may not raise it."""
    executor = ExecutorProcess(parked=1)
    executor.prefix = LIMITED
    with executor:
        yield executor


def test_machine_code_has_the_jobs_memory(executor: ExecutorProcess) -> None:
    result = executor.run_job(DEEP, "main.c", "c", limits=PATIENT)
    if OPEN or HARD >= MEMORY:
        assert result.ok() == b"%d\n7\n" % MEMORY
    else:
        assert result.stdout.startswith(b"%d\n" % HARD)


def test_an_uploaded_program_has_it_too(executor: ExecutorProcess, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(DEEP)
    subprocess.run(["gcc", "-O2", "-static", "-o", "main", "main.c"], cwd=tmp_path, check=True)
    result = executor.run_job((tmp_path / "main").read_bytes(), "main", "executable", limits=PATIENT)
    assert result.stdout.startswith(b"%d\n" % (MEMORY if OPEN else min(MEMORY, HARD)))


@pytest.mark.parametrize("warm", [True, False])
def test_others_begin_with_what_is_usual_and_may_set_more(executor: ExecutorProcess, warm: bool) -> None:
    python = executor.run_job(SET, warm=warm)
    shell = executor.run_job(UNLIMITED, "main.sh", "bash")
    assert python.stdout == b"%d\n" % (8 << 20)
    assert shell.stdout.startswith(b"8192\n")
    if OPEN:
        assert python.ok()
        assert shell.ok() == b"8192\nunlimited\n"
    else:
        assert b"setrlimit" in python.stderr
        assert shell.outcome.exit_code != 0


def test_recursion_without_end_is_ended_by_a_limit(executor: ExecutorProcess) -> None:
    outcome = executor.run_job(ENDLESS, "main.c", "c", limits=PATIENT).outcome
    assert outcome.verdict in ("memory_limit", "signaled")
    assert executor.run_job("print('after')").ok() == b"after\n"


def test_a_hard_limit_that_cannot_be_raised_holds_for_jobs(limited: ExecutorProcess) -> None:
    result = limited.run_job(DEEP, "main.c", "c", limits=PATIENT)
    assert (result.outcome.verdict, result.outcome.signal) == ("signaled", 11)
    assert result.stdout == b"%d\n" % LOWER
    python = limited.run_job(SET)
    assert python.stdout == b"%d\n" % (8 << 20)
    assert b"ValueError" in python.stderr


def test_doctor_tells_of_such_a_limit() -> None:
    command = [*LIMITED, *PYTHON, "-m", "sandrun_executor", "--check"]
    checks = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    found = next(check for check in checks if check["name"] == "stack")
    assert (found["ok"], found["required"]) == (False, False)
    assert "16384 KiB" in found["found"]
