"""Names and memory of a job are not in the kernel's log, however it ends.

Crashes are tried in the test machine (tests/vm/guest/test_kernel_log.py): what the kernel says of them is a
setting of the machine, which these tests leave alone.
"""

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_shared.jobs import Limits
from support.executor import ExecutorProcess, Result
from support.kernel_log import KernelLog

LIMITS = Limits(wall_seconds=60.0, memory_bytes=64 << 20, disk_bytes=256 << 20)
PYTHON = Path("/usr/bin/python3").resolve()
HUNGRY = "x = []\nwhile True: x.append(CANARY * 100_000)\n"
SET_NAME = (
    "import ctypes\nlibc = ctypes.CDLL(None)\nassert libc.prctl(15, CANARY.encode(), 0, 0, 0) == 0\n"
    "for path in '/proc/self/comm', '/proc/thread-self/comm':\n"
    " try: open(path, 'w').write(CANARY)\n"
    " except OSError: pass\n"
)
# A program of a client's that has the name of the canary for its process.
AS_ANOTHER = (
    "import os, shutil, sys\n"
    "if 'again' not in sys.argv:\n"
    f" shutil.copy({str(PYTHON)!r}, CANARY)\n"
    " os.execv('./' + CANARY, [CANARY, sys.argv[0], 'again'])\n"
)
WRITES = "import os\nfd = os.open(CANARY, os.O_CREAT | os.O_WRONLY)\nwhile True: os.write(fd, b'x' * 65536)\n"
FORKS = "import os\nwhile os.fork(): pass\n" + HUNGRY


@pytest.fixture
def canary() -> str:
    """A word that is nowhere else, as long as a command name may be."""
    return f"canary{secrets.token_hex(4)}"


@pytest.fixture
def log(_root: None) -> Iterator[KernelLog]:
    opened = KernelLog()
    yield opened
    opened.close()


def run(executor: ExecutorProcess, canary: str, program: str, **options: object) -> Result:
    """A program that knows the canary as CANARY, with the canary wherever a client can put one."""
    files = {f"{canary}.py": f"CANARY = {canary!r}\n{program}".encode()}
    options = {"limits": LIMITS, "args": [canary], "env": {canary: canary}, **options}
    return executor.run_job(files, f"{canary}.py", **options)


def run_executable(executor: ExecutorProcess, canary: str, program: str, **options: object) -> Result:
    """The same in an executable file that is called like the canary."""
    options = {"limits": LIMITS, "args": ["-c", f"CANARY = {canary!r}\n{program}"], **options}
    return executor.run_job({canary: PYTHON.read_bytes()}, canary, "executable", **options)


def killed_by_kernel(executor: ExecutorProcess, text: str) -> list[int]:
    """User ids of this executor's slots whose processes the kernel's out-of-memory killer ended."""
    uids = [int(uid) for uid in re.findall(r"Killed process .* UID:(\d+)", text)]
    return [uid for uid in uids if executor.first_uid <= uid < executor.first_uid + 100]


OUT_OF_MEMORY = {
    "heap": HUNGRY,
    "heap of a process that named itself": SET_NAME + HUNGRY,
    "heap of a program of the job's": AS_ANOTHER + HUNGRY,
    "files": WRITES,
    "heaps of many": FORKS,
}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_a_job_that_runs_out_of_memory(
    executor: ExecutorProcess, log: KernelLog, canary: str, kind: str
) -> None:
    outcome = run(executor, canary, OUT_OF_MEMORY[kind]).outcome
    assert outcome.verdict == "memory_limit"
    assert 0.9 * LIMITS.memory_bytes < outcome.memory_peak_bytes <= LIMITS.memory_bytes
    text = log.text()
    assert canary not in text
    assert killed_by_kernel(executor, text) == []


def test_an_executable_that_runs_out_of_memory(
    executor: ExecutorProcess, log: KernelLog, canary: str
) -> None:
    outcome = run_executable(executor, canary, SET_NAME + HUNGRY).outcome
    assert (outcome.verdict, outcome.exit_code, outcome.signal) == ("memory_limit", 137, 9)
    text = log.text()
    assert canary not in text
    assert killed_by_kernel(executor, text) == []


def test_the_kernel_names_the_process_unless_memory_is_watched(log: KernelLog, canary: str) -> None:
    with ExecutorProcess(without=["memory_watch"]) as weakened:
        assert run(weakened, canary, AS_ANOTHER + HUNGRY).outcome.verdict == "memory_limit"
        text = log.text()
        assert canary in text
        assert killed_by_kernel(weakened, text)


@pytest.mark.parametrize(("without", "named"), [([], False), (["own_name"], True)])
def test_an_executables_process_has_our_name(canary: str, without: list[str], named: bool) -> None:
    """Of its file's, the kernel is told nothing; the program is."""
    program = (
        "import os, sys\nfor path in 'comm', 'cmdline': print(open('/proc/self/' + path).read().split('\\0')[0].strip())\n"
        "print(os.readlink('/proc/self/exe'), sys.orig_argv[0])\n"
    )
    with ExecutorProcess(without=without) as started:
        said = run_executable(started, canary, program).ok().decode()
    assert said == f"{canary if named else 'a.out'}\n./{canary}\n/work/{canary} ./{canary}\n"


def test_a_script_is_given_its_own_path(executor: ExecutorProcess, canary: str) -> None:
    script = b'#!/bin/sh\nprintf \'%s\\n\' "$0" "$@"\n'
    result = executor.run_job({canary: script}, canary, "executable", args=["one"])
    assert result.ok().decode() == f"./{canary}\none\n"


def test_a_thread_keeps_the_name_that_it_has(executor: ExecutorProcess, canary: str) -> None:
    program = SET_NAME + (
        "import threading\ndef say():\n"
        " assert libc.pthread_setname_np(ctypes.c_void_p(threading.get_ident()), CANARY.encode()) == 0\n"
        " print(open('/proc/thread-self/comm').read())\n"
        "say()\nthread = threading.Thread(target=say)\nthread.start()\nthread.join()\n"
    )
    assert run(executor, canary, program).ok() == b"python3\n\n" * 2


def test_a_program_executed_without_arguments(executor: ExecutorProcess, log: KernelLog, canary: str) -> None:
    """The kernel would say its path, once for each start of the machine."""
    program = AS_ANOTHER.replace(
        "os.execv('./' + CANARY, [CANARY, sys.argv[0], 'again'])", "import ctypes"
    ) + ("ctypes.CDLL(None).execve(b'./' + CANARY.encode(), None, None)\nraise SystemExit('no execve')\n")
    assert b"no execve" not in run(executor, canary, program, stdin=b"").stderr
    assert canary not in log.text()


def test_memory_up_to_the_limit_is_a_jobs_own(executor: ExecutorProcess) -> None:
    """It has it for longer than a look at it takes, in files and in its heap."""
    program = (
        "import os, time\n"
        f"size = {LIMITS.memory_bytes} * 9 // 10 - 16 * 2**20\n"
        "fd = os.open('part', os.O_CREAT | os.O_WRONLY)\n"
        "for _ in range(size // 2**21): os.write(fd, bytes(2**20))\n"
        "heap = b'x' * (size // 2)\ntime.sleep(2.5)\nos.unlink('part')\nprint('fine')"
    )
    result = executor.run_job(program, limits=LIMITS)
    assert result.ok() == b"fine\n"
    assert result.outcome.memory_peak_bytes > 0.6 * LIMITS.memory_bytes


def uncache(path: Path) -> None:
    """Have the kernel forget what it holds of a file, so that the next to read it is charged."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def test_files_that_the_kernel_caches_are_not_a_jobs_memory(executor: ExecutorProcess) -> None:
    """They are charged to the job, up to its limit, and given back when it needs the memory."""
    folders = [Path("/usr/lib"), Path("/usr/bin")]
    sizes = {path: path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()}
    chosen, left = [], 2 * LIMITS.memory_bytes
    for path in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if left > 0:
            chosen.append(str(path))
            left -= sizes[path]
            uncache(path)
    program = (
        f"for path in {chosen!r}:\n with open(path, 'rb') as file:\n  while file.read(65536): pass\n"
        f"heap = b'x' * {LIMITS.memory_bytes // 4}\nraise SystemExit(3)"
    )
    outcome = executor.run_job(program, limits=LIMITS).outcome
    assert (outcome.verdict, outcome.exit_code) == ("nonzero_exit", 3)
    assert outcome.memory_peak_bytes > 0.9 * LIMITS.memory_bytes


def test_a_job_out_of_memory_ends_in_order(executor: ExecutorProcess) -> None:
    """What it had written and printed is kept."""
    program = "print('so far', flush=True)\nopen('part', 'w').write('kept')\nCANARY = 'x'\n" + HUNGRY
    result = executor.run_job(program, limits=LIMITS)
    assert (result.outcome.verdict, result.outcome.exit_code) == ("memory_limit", 137)
    assert result.stdout == b"so far\n"
    assert result.outputs == {"part": b"kept"}


def test_a_call_that_is_refused_memory_ends_the_job(executor: ExecutorProcess) -> None:
    """dd touches no new memory: on cgroup v1 its call fails, and it exits."""
    result = executor.run_job("exec dd if=/dev/zero of=big bs=64k", "main", "bash", limits=LIMITS)
    assert result.outcome.verdict == "memory_limit"
