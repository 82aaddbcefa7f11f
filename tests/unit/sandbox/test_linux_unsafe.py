"""What the zygote does to its own memory, each in an interpreter of its own."""

import gc
import subprocess
import sys

import pytest

from sandrun_executor.sandboxes import zygote
from sandrun_sandbox import layout
from sandrun_sandbox import linux_unsafe as linux

ARENAS = """
import re
from sandrun_sandbox import linux_unsafe as linux
def heap():
    start, end = re.search(r"^(\\w+)-(\\w+) .*\\[heap\\]$", open("/proc/self/maps").read(), re.M).groups()
    return (int(end, 16) - int(start, 16)) >> 20
kept = [[None] * 400_000 for _ in range(2)]
sizes = [heap()]
end = linux.arenas_from_heap()
for rows in kept:
    for number in range(len(rows)):
        rows[number] = complex(number)  # 12 MiB of objects
    sizes.append(heap())
    end()
del kept, rows
print(sizes[1] - sizes[0] >= 12, sizes[2] - sizes[1] < 2)
"""
HUGE = """
import ctypes, mmap, os, re
from sandrun_sandbox import linux_unsafe as linux
size = 8 << 20
memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:] = bytes(range(256)) * (size >> 8)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
try:
    linux.collapse(address + 4096, address + size)
except OSError as error:
    print("none here:", error)
    os._exit(0)
smaps = open("/proc/self/smaps").read()
print(sum(map(int, re.findall(r"AnonHugePages: +(\\d+)", smaps))) >= 4096, memory[:] == bytes(range(256)) * (size >> 8))
linux.collapse(address, address + 4096)
os._exit(0)  # the view of ctypes keeps the memory from being closed
"""


def run(program: str, *python: str) -> str:
    command = [*(python or (sys.executable,)), "-"]
    done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout


def test_objects_are_in_the_heap_until_it_ends() -> None:
    assert run(ARENAS) == "True True\n"


def test_memory_is_in_huge_pages_and_the_same() -> None:
    said = run(HUGE)
    if said.startswith("none here"):
        pytest.skip(said)
    assert said == "True True\n"


def test_a_dict_keeps_a_part_of_what_it_held() -> None:
    part, rest = object(), object()
    before = sys.getrefcount(part)
    old = {"part": part, "rest": rest, **{str(number): number for number in range(100)}}
    linux.refill_dict(old, {"part": part, "2": 2})
    assert old == {"part": part, "2": 2}
    assert list(old) == ["part", "2"]
    assert sys.getrefcount(part) == sys.getrefcount(rest) == before + 1  # that of the rest for good
    old["three"] = 3
    del old["part"]
    gc.collect()
    assert old == {"2": 2, "three": 3}
    assert sys.getrefcount(part) == before
    old.clear()
    assert not old


def test_the_zygotes_modules_import_little() -> None:
    """Each large module more is memory that every fork goes over."""
    program = zygote._load(zygote._MODULES) + "print(*sorted(sys.modules))"
    loaded = set(run(program, layout.PYTHON, "-IS").split())
    assert "sandrun_sandbox.python.run_python" in loaded
    assert not loaded & {"typing", "re", "enum", "collections", "functools", "contextlib"}
