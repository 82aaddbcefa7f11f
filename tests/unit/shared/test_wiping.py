"""A process that overwrites what it frees."""

import os
import subprocess
import sys

from sandrun_shared import wiping

PROGRAM = """
import os, sys
from sandrun_shared import wiping
wiping.restart()
sys.path.insert(0, {tests!r})
from support.memory import occurrences
word = os.urandom(8).hex().encode()
if len(sys.argv) > 1 and sys.argv[1] == "kept":
    held = [bytes([number]) + word for number in range(100)]
else:
    freed = [bytes([number]) + word for number in range(100)]
    del freed
print(os.getpid(), occurrences(os.getpid(), word) > 50, sys.argv[1:], os.environ.get("KEPT"))
"""


def run(*arguments: str, **environ: str) -> tuple[int, list[str]]:
    tests = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    command = [sys.executable, "-c", PROGRAM.format(tests=tests), *arguments]
    with subprocess.Popen(
        command, env={"PATH": "/usr/bin:/bin", **environ}, stdout=subprocess.PIPE, text=True
    ) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return process.pid, said.split(maxsplit=2)


def test_freed_memory_is_overwritten() -> None:
    assert run("freed")[1][1] == "False"
    assert run("kept")[1][1] == "True"  # the same search finds what is still there
    assert run("freed", SANDRUN_WIPES="1")[1][1] == "True"  # without it, what was freed


def test_it_stays_the_same_process_with_its_arguments_and_environment() -> None:
    pid, said = run("a b", "c", KEPT="yes")
    assert said[0] == str(pid)
    assert said[2].strip() == "['a b', 'c'] yes"


def test_it_starts_again_once() -> None:
    environ = wiping.variables({"PATH": "/bin"})
    assert environ is not None
    assert environ.items() >= wiping.ALLOCATOR.items()
    assert wiping.variables(environ) is None
