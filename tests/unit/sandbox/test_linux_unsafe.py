"""What the zygote has the kernel do to its memory, tested in a separate interpreter."""

import subprocess
import sys

import pytest

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


def run(program: str) -> str:
    command = [sys.executable, "-"]
    done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout


def test_memory_is_in_huge_pages_and_the_same() -> None:
    said = run(HUGE)
    if said.startswith("none here"):
        pytest.skip(said)
    assert said == "True True\n"
