"""What the zygote does to its own interpreter, each in a fresh one."""

import gc
import subprocess
import sys

from sandrun_sandbox.python import cpython_unsafe as cpython

ARENAS = """
import re
from sandrun_sandbox.python import cpython_unsafe as cpython
def heap():
    start, end = re.search(r"^(\\w+)-(\\w+) .*\\[heap\\]$", open("/proc/self/maps").read(), re.M).groups()
    return (int(end, 16) - int(start, 16)) >> 20
kept = [[None] * 400_000 for _ in range(2)]
sizes = [heap()]
end = cpython.arenas_from_heap()
for rows in kept:
    for number in range(len(rows)):
        rows[number] = complex(number)  # 12 MiB of objects
    sizes.append(heap())
    end()
del kept, rows
print(sizes[1] - sizes[0] >= 12, sizes[2] - sizes[1] < 2)
"""


def test_objects_are_in_the_heap_until_it_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-"], input=ARENAS, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_a_dict_keeps_a_part_of_what_it_held() -> None:
    part, rest = object(), object()
    before = sys.getrefcount(part)
    old = {"part": part, "rest": rest, **{str(number): number for number in range(100)}}
    cpython.refill_dict(old, {"part": part, "2": 2})
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
