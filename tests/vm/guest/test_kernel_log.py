"""Crashes, and what the kernel says of them once Sandrun is installed: nothing that a client chose."""

import platform
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandrun_shared import kernel_log
from sandrun_shared.jobs import Limits
from support import installed
from support.executor import Result
from support.installed import EXECUTOR, Installed
from support.kernel_log import KernelLog

executor = Installed()
LIMITS = Limits(wall_seconds=300.0, memory_bytes=96 << 20, disk_bytes=64 << 20)
PYTHON = Path("/usr/bin/python3").resolve()
# For x86-64, the machine's: an instruction at which the processor stops a program, and a way out if it does not.
CODES = {
    "segmentation fault": b"\x48\x8b\x04\x25\x00\x00\x00\x00",
    "general protection": b"\xf4",
    "divide error": b"\x31\xc9\xf7\xf1",
    "invalid opcode": b"\x0f\x0b",
    "breakpoint": b"\xcc",
    "descriptor table": b"\x48\x83\xec\x40\x0f\x01\x04\x24\x48\x83\xc4\x40",
}
# Executes code in a file that is called like the canary, between canaries, in a thread called so.
CRASH = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(15, CANARY.encode(), 0, 0, 0)
words = CANARY.encode() * 10
with open(CANARY + '.so', 'wb') as file: file.write(words + CODE + b'\\xc3' + words)
fd = os.open(CANARY + '.so', os.O_RDONLY)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
start = libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
print('crashing', flush=True)
ctypes.CFUNCTYPE(None)(start + len(words))()
"""
Runner = Callable[[str, str], Result]


def as_python(canary: str, program: str) -> Result:
    """A Python job."""
    files = {f"{canary}.py": program.encode()}
    return executor.run_job(files, f"{canary}.py", limits=LIMITS, args=[canary], env={canary: canary})


def as_executable(canary: str, program: str) -> Result:
    """The same in an executable file that is called like the canary."""
    return executor.run_job(
        {canary: PYTHON.read_bytes()}, canary, "executable", limits=LIMITS, args=["-c", program]
    )


def crash(run: Runner, canary: str, kind: str) -> None:
    result = run(canary, f"CANARY = {canary!r}\nCODE = {CODES[kind]!r}\n{CRASH}")
    assert result.stdout == b"crashing\n", result
    assert result.outcome.verdict == ("ok" if kind == "descriptor table" else "signaled")


def told(canary: str, text: str) -> bool:
    """Whether the kernel quotes it, as it is or as code."""
    return canary in text or canary.encode().hex(" ") in text


@pytest.fixture
def canary() -> str:
    """A word that is nowhere else, as long as a command name may be."""
    return f"canary{secrets.token_hex(4)}"


@pytest.fixture
def log() -> Iterator[KernelLog]:
    opened = KernelLog()
    yield opened
    opened.close()


def test_machine_is_what_these_tests_are_about() -> None:
    assert platform.machine() == "x86_64"


def test_the_kernel_is_told_to_keep_silent() -> None:
    assert kernel_log.others() == {}


@pytest.mark.parametrize(
    ("run", "kind"), [*((as_python, kind) for kind in CODES), (as_executable, "segmentation fault")]
)
def test_a_crash(log: KernelLog, canary: str, run: Runner, kind: str) -> None:
    crash(run, canary, kind)
    assert not told(canary, log.text())


def test_the_kernel_tells_of_a_crash_without_the_setting(log: KernelLog, canary: str) -> None:
    setting = Path("/proc/sys/debug/exception-trace")
    setting.write_text("1")
    try:
        crash(as_python, canary, "segmentation fault")
    finally:
        setting.write_text("0")
    assert told(canary, log.text())


@pytest.mark.parametrize("run", [as_python, as_executable])
def test_a_job_out_of_memory(log: KernelLog, canary: str, run: Runner) -> None:
    program = (
        f"CANARY = {canary!r}\nimport ctypes\nctypes.CDLL(None).prctl(15, CANARY.encode(), 0, 0, 0)\n"
        "x = []\nwhile True: x.append(CANARY * 100_000)\n"
    )
    assert run(canary, program).outcome.verdict == "memory_limit"
    assert canary not in log.text()


def test_the_journal_has_nothing_of_them(canary: str) -> None:
    crash(as_executable, canary, "divide error")
    installed.run("journalctl", "--sync")
    command = ["journalctl", "--boot", "--all", "--output", "export"]
    journal = subprocess.run(command, check=True, capture_output=True, timeout=300).stdout
    assert EXECUTOR.encode() in journal
    assert not told(canary, journal.decode(errors="replace"))
