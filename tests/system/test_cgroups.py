"""The cgroups of this machine: limits that hold, counters that count, groups that go."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandrun_executor import cgroups
from sandrun_executor.cgroup_types import Cgroup, CgroupError, Hierarchy
from sandrun_executor.cgroups_v1 import HierarchyV1

MIB = 1 << 20
SECONDS = 20.0


@pytest.fixture(autouse=True)
def leftovers() -> None:
    """In place of the one that runs an executor: none is needed here."""


@pytest.fixture
def hierarchy(_root: None) -> Iterator[Hierarchy]:
    made = cgroups.probe(f"test-{os.getpid()}")
    yield made
    made.sweep()
    made.close()
    assert remaining(made) == []


def remaining(hierarchy: Hierarchy) -> list[Path]:
    tops = hierarchy.tops.values() if isinstance(hierarchy, HierarchyV1) else [hierarchy.top]  # type: ignore[attr-defined]
    return [top for top in tops if top.exists()]


@pytest.fixture
def group(hierarchy: Hierarchy) -> Cgroup:
    made = hierarchy.create("job")
    made.limit(memory_bytes=64 * MIB, processes=32, cpu_cores=1.0)
    return made


def join(group: Cgroup) -> Callable[[], None]:
    def joined() -> None:
        for fd in group.join_fds:
            os.write(fd, b"0")
        if group.into_fd is not None:
            fd = os.open("cgroup.procs", os.O_WRONLY, dir_fd=group.into_fd)
            os.write(fd, b"0")
            os.close(fd)

    return joined


def start(group: Cgroup, *argv: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        preexec_fn=join(group),  # noqa: PLW1509 (no threads here)
        stdin=stdin,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def wait(process: subprocess.Popen[bytes]) -> int:
    """Reap within a bounded time, waiting on its pidfd."""
    pidfd = os.pidfd_open(process.pid)
    try:
        if not select.select([pidfd], [], [], SECONDS)[0]:
            process.kill()
            pytest.fail("the process did not end")
    finally:
        os.close(pidfd)
        if process.stdin is not None:
            process.stdin.close()
    status = process.wait()
    assert process.stdout is not None
    process.stdout.close()
    return status


def python(group: Cgroup, code: str) -> subprocess.Popen[bytes]:
    return start(group, sys.executable, "-I", "-S", "-c", code)


def sleeper(group: Cgroup) -> subprocess.Popen[bytes]:
    """A process that is certainly in the group and stays until it is killed."""
    process = start(group, "/bin/sh", "-c", "echo; read forever", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"\n"
    return process


def in_file(hierarchy: Hierarchy, controller: str, name: str) -> int:
    assert isinstance(hierarchy, HierarchyV1)
    return int((hierarchy.tops[controller] / "job" / name).read_text())


def test_memory_bomb_is_ended_and_counted(group: Cgroup) -> None:
    assert group.oom_kills() == 0
    assert group.oom_event_fd is not None
    assert select.select([group.oom_event_fd], [], [], 0)[0] == []
    status = wait(python(group, "x = bytearray(200 << 20)"))
    assert status == -signal.SIGKILL
    assert group.oom_kills() > 0
    assert select.select([group.oom_event_fd], [], [], SECONDS)[0] == [group.oom_event_fd]
    assert group.memory_peak_bytes() > 60 * MIB
    group.remove()


def test_memory_within_the_limit_is_no_event(group: Cgroup) -> None:
    assert wait(python(group, "x = bytearray(20 << 20)")) == 0
    assert group.oom_kills() == 0
    assert group.memory_peak_bytes() > 20 * MIB
    assert group.memory_bytes() < 64 * MIB
    group.remove()


def test_limits_are_raised_and_lowered(hierarchy: Hierarchy, group: Cgroup) -> None:
    if not isinstance(hierarchy, HierarchyV1):
        pytest.skip("reads files of cgroup v1")
    for size in (64, 128, 32, 32, 256, 16):
        group.limit(memory_bytes=size * MIB, processes=size, cpu_cores=size / 64)
        assert in_file(hierarchy, "memory", "memory.limit_in_bytes") == size * MIB
        if hierarchy.limit_swap:  # memory and swap together: no swap beyond the memory
            assert in_file(hierarchy, "memory", "memory.memsw.limit_in_bytes") == size * MIB
        assert in_file(hierarchy, "pids", "pids.max") == size
        period = in_file(hierarchy, "cpu", "cpu.cfs_period_us")
        assert in_file(hierarchy, "cpu", "cpu.cfs_quota_us") / period == size / 64
    group.remove()


def test_limit_below_what_is_in_use_is_an_error(group: Cgroup) -> None:
    # Anonymous memory cannot be reclaimed where no swap is: v1 refuses, v2 ends the group.
    process = start(
        group,
        sys.executable,
        "-c",
        "x = bytearray(b'1') * (40 << 20); print(flush=True); input()",
        stdin=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(1)
    if group.into_fd is None:
        with pytest.raises(CgroupError, match=r"memory\.(memsw\.)?limit_in_bytes"):
            group.limit(memory_bytes=4 * MIB, processes=8, cpu_cores=1.0)
    group.kill()
    wait(process)
    group.remove()


def test_processes_and_threads_are_limited(group: Cgroup) -> None:
    group.limit(memory_bytes=64 * MIB, processes=5, cpu_cores=1.0)
    process = python(
        group,
        "import os, signal\n"
        "children = []\n"
        "try:\n"
        "    while True:\n"
        "        pid = os.fork()\n"
        "        if pid == 0: signal.pause()\n"
        "        children.append(pid)\n"
        "except BlockingIOError: print(len(children), flush=True)\n"
        "for pid in children: os.kill(pid, 9); os.waitpid(pid, 0)\n",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"4\n"
    assert wait(process) == 0
    group.remove()


def test_cpu_time_is_counted(group: Cgroup) -> None:
    before = group.cpu_seconds()
    code = "import time\nwhile time.process_time() < 0.3: pass"
    assert wait(python(group, code)) == 0
    assert 0.28 < group.cpu_seconds() - before < 5.0
    group.remove()


def test_cpu_share_is_enforced(group: Cgroup) -> None:
    group.limit(memory_bytes=64 * MIB, processes=32, cpu_cores=0.25)
    code = (
        "import time\nbegan = time.monotonic()\n"
        "while time.process_time() < 0.3: pass\nprint(time.monotonic() - began)"
    )
    process = python(group, code)
    assert process.stdout is not None
    assert float(process.stdout.readline()) > 0.6
    assert wait(process) == 0
    group.remove()


def test_fork_bomb_is_killed(group: Cgroup) -> None:
    process = start(
        group, "/bin/sh", "-c", "bomb() { bomb | bomb & }; bomb; echo; exec cat", stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(1)
    for _ in range(100):
        group.kill()
        if not group.pids():
            break
    wait(process)
    assert group.pids() == []
    remove_soon(group)


def remove_soon(group: Cgroup) -> None:
    """A group may be busy for the moment in which its dead are being reaped."""
    for _ in range(10_000):
        try:
            group.remove()
        except CgroupError:
            os.sched_yield()
        else:
            return
    group.remove()


def test_populated_group_stays(group: Cgroup) -> None:
    process = sleeper(group)
    assert group.pids() == [process.pid]
    with pytest.raises(CgroupError, match="busy"):
        group.remove()
    assert group.pids() == [process.pid]
    assert group.memory_bytes() > 0
    group.kill()
    assert wait(process) == -signal.SIGKILL
    assert group.pids() == []
    group.remove()


def test_kill_spares_the_others(hierarchy: Hierarchy, group: Cgroup) -> None:
    other = hierarchy.create("other")
    victim, bystander = sleeper(group), sleeper(other)
    group.kill()
    assert wait(victim) == -signal.SIGKILL
    assert bystander.poll() is None
    assert other.pids() == [bystander.pid]
    other.kill()
    wait(bystander)
    group.remove()
    other.remove()


def test_create_and_remove_leave_no_descriptor(hierarchy: Hierarchy) -> None:
    hierarchy.create("warm").remove()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        made = hierarchy.create("job")
        made.limit(memory_bytes=64 * MIB, processes=32, cpu_cores=1.0)
        made.remove()
    assert len(os.listdir("/proc/self/fd")) == before


def test_failed_create_leaves_nothing(hierarchy: Hierarchy, group: Cgroup) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CgroupError, match="exists"):
        hierarchy.create("job")
    assert len(os.listdir("/proc/self/fd")) == before
    group.limit(memory_bytes=32 * MIB, processes=4, cpu_cores=1.0)  # what was there still works
    group.remove()


def test_half_made_group_is_undone(hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(hierarchy, HierarchyV1):
        pytest.skip("v2 has one directory")
    hierarchy.create("warm").remove()
    blocking = hierarchy.tops["cpuacct"] / "job"
    blocking.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CgroupError, match="exists"):
        hierarchy.create("job")
    assert len(os.listdir("/proc/self/fd")) == before
    assert not (hierarchy.tops["memory"] / "job").exists()
    blocking.rmdir()


def test_sweep_ends_what_a_crash_left(hierarchy: Hierarchy) -> None:
    assert hierarchy.sweep() == 0
    code = (
        "import os, signal, subprocess, sys\n"
        "from sandrun_executor import cgroups\n"
        "group = cgroups.probe(sys.argv[1]).create('job')\n"
        "def join():\n"
        "    for fd in group.join_fds: os.write(fd, b'0')\n"
        "child = subprocess.Popen(['/bin/sh', '-c', 'echo; read forever'], preexec_fn=join,\n"
        "    stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.read(1)\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    instance = f"test-{os.getpid()}"
    crashed = subprocess.Popen([sys.executable, "-P", "-c", code, instance], stdout=subprocess.PIPE)
    assert crashed.stdout is not None
    orphan = os.pidfd_open(int(crashed.stdout.readline()))
    try:
        assert select.select([orphan], [], [], 0)[0] == []
        assert hierarchy.sweep() > 0
        assert select.select([orphan], [], [], SECONDS)[0] == [orphan]
    finally:
        os.close(orphan)
        crashed.kill()
        wait(crashed)
    assert remaining(hierarchy) == []
    assert hierarchy.sweep() == 0


def test_sweep_leaves_other_instances(hierarchy: Hierarchy) -> None:
    other = cgroups.probe(f"test-{os.getpid()}-other")
    made = other.create("job")
    assert hierarchy.sweep() == 0
    assert made.pids() == []
    made.remove()
    other.close()
