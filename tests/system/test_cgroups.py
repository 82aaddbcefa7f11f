"""The cgroups of this machine: limits hold, counters count, groups can be removed."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandrun_executor.cgroups import probe
from sandrun_executor.cgroups.driver import Cgroup, CgroupError, Hierarchy
from sandrun_executor.cgroups.v1 import HierarchyV1
from sandrun_executor.cgroups.v2 import CONTROLLERS, HierarchyV2
from sandrun_sandbox import linux_unsafe

MIB = 1 << 20
SECONDS = 20.0


@pytest.fixture(autouse=True)
def leftovers() -> None:
    """In place of the one that runs an executor: none is needed here."""


@pytest.fixture
def hierarchy(_root: None) -> Iterator[Hierarchy]:
    made = probe.probe(f"test-{os.getpid()}")
    yield made
    made.sweep()
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


def in_v2(hierarchy: Hierarchy, name: str) -> str:
    assert isinstance(hierarchy, HierarchyV2)
    return (hierarchy.top / "job" / name).read_text().strip()


def test_memory_bomb_is_ended_and_counted(group: Cgroup) -> None:
    assert group.oom_kills() == 0
    if group.oom_event_fd >= 0:
        assert select.select([group.oom_event_fd], [], [], 0)[0] == []
    status = wait(python(group, "x = bytearray(200 << 20)"))
    assert status == -signal.SIGKILL
    assert group.oom_kills() > 0
    if group.oom_event_fd >= 0:
        assert select.select([group.oom_event_fd], [], [], SECONDS)[0] == [group.oom_event_fd]
    assert 60 * MIB < group.memory_peak_bytes() <= 64 * MIB
    group.remove()


def test_who_watches_ends_a_memory_bomb_before_the_kernel_does(group: Cgroup) -> None:
    group.limit(memory_bytes=64 * MIB, processes=32, cpu_cores=1.0, watched=True)
    assert not group.out_of_memory()
    assert select.select([group.oom_event_fd], [], [], 0)[0] == []
    spared, process = sleeper(group), python(group, "x = bytearray(200 << 20)")
    while not group.out_of_memory():
        assert select.select([group.oom_event_fd], [], [], SECONDS)[0] == [group.oom_event_fd]
    assert process.poll() is None
    group.kill(spared=spared.pid)
    assert wait(process) == -signal.SIGKILL
    assert group.oom_kills() == 0
    assert group.pids() == [spared.pid]
    assert 60 * MIB < group.memory_peak_bytes() <= 64 * MIB
    assert not group.out_of_memory()
    group.kill()
    assert wait(spared) == -signal.SIGKILL
    remove_soon(group)


def test_memory_within_the_limit_is_no_event(group: Cgroup) -> None:
    assert wait(python(group, "x = bytearray(20 << 20)")) == 0
    assert group.oom_kills() == 0
    assert group.memory_peak_bytes() > 20 * MIB
    assert group.memory_bytes() < 64 * MIB
    group.remove()


def test_limits_are_raised_and_lowered(hierarchy: Hierarchy, group: Cgroup) -> None:
    for size in (64, 128, 32, 32, 256, 16):
        group.limit(memory_bytes=size * MIB, processes=size, cpu_cores=size / 64)
        if isinstance(hierarchy, HierarchyV2):
            assert in_v2(hierarchy, "memory.max") == str(size * MIB)
            assert in_v2(hierarchy, "pids.max") == str(size)
            quota, period = in_v2(hierarchy, "cpu.max").split()
            assert int(quota) / int(period) == size / 64
            continue
        assert in_file(hierarchy, "memory", "memory.limit_in_bytes") == size * MIB
        if hierarchy.limit_swap:  # type: ignore[attr-defined]  # no swap beyond the memory
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
        "import time\nbegan, used = time.monotonic(), time.process_time()\n"
        "while time.process_time() - used < 0.3: pass\nprint(time.monotonic() - began)"
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
    remove_soon(group)


def test_groups_with_processes_are_ended_and_go(hierarchy: Hierarchy, group: Cgroup) -> None:
    processes = [sleeper(each) for each in (group, group, hierarchy.create("other"))]
    assert hierarchy.sweep() > 0
    assert remaining(hierarchy) == []
    assert [wait(process) for process in processes] == [-signal.SIGKILL] * 3


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


@pytest.mark.cgroup("v1")  # v2 has one directory
def test_half_made_group_is_undone(hierarchy: Hierarchy) -> None:
    assert isinstance(hierarchy, HierarchyV1)
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
        "from sandrun_executor.cgroups import probe as cgroups\n"
        "group = cgroups.probe(sys.argv[1]).create('job')\n"
        "def join():\n"
        "    for fd in group.join_fds: os.write(fd, b'0')\n"
        "    if group.into_fd is not None:\n"
        "        os.write(os.open('cgroup.procs', os.O_WRONLY, dir_fd=group.into_fd), b'0')\n"
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
    other = probe.probe(f"test-{os.getpid()}-other")
    made = other.create("job")
    assert hierarchy.sweep() == 0
    assert made.pids() == []
    made.remove()
    assert other.sweep() > 0


# What only v2 has


@pytest.fixture
def v2(hierarchy: Hierarchy) -> HierarchyV2:
    assert isinstance(hierarchy, HierarchyV2)
    return hierarchy


@pytest.mark.cgroup("v2")
def test_controllers_are_handed_down_from_a_group_of_its_own(v2: HierarchyV2, group: Cgroup) -> None:
    for folder in (v2.own, v2.top):
        assert set((folder / "cgroup.subtree_control").read_text().split()) >= set(CONTROLLERS)
        assert (folder / "cgroup.procs").read_text() == ""
    ours = Path("/proc/self/cgroup").read_text().strip().removeprefix("0::")
    assert v2.mount / ours.lstrip("/") == v2.own / "supervisor"
    assert probe.probe(f"test-{os.getpid()}") == v2  # found again, from the leaf
    group.remove()


@pytest.mark.cgroup("v2")
def test_a_process_is_born_into_the_group(v2: HierarchyV2, group: Cgroup) -> None:
    told, tell = os.pipe()
    release, hold = os.pipe()
    pid, pidfd = linux_unsafe.clone3(0, group.into_fd)
    if pid == 0:
        os.write(tell, Path("/proc/self/cgroup").read_bytes())
        os.close(hold)
        os.read(release, 1)
        os._exit(0)
    os.close(tell)
    own = Path("/proc/self/cgroup").read_text()
    with os.fdopen(told) as reader:
        assert reader.readline().strip().endswith(f"/{v2.top.name}/job")
        assert group.pids() == [pid]
    assert Path("/proc/self/cgroup").read_text() == own
    os.close(hold)
    os.close(release)
    assert select.select([pidfd], [], [], SECONDS)[0] == [pidfd]
    os.close(pidfd)
    os.waitpid(pid, 0)
    remove_soon(group)


@pytest.mark.cgroup("v2")
def test_running_out_of_memory_ends_the_whole_group(v2: HierarchyV2, group: Cgroup) -> None:
    assert in_v2(v2, "memory.oom.group") == "1"
    assert in_v2(v2, "memory.swap.max") == "0"
    bystander = sleeper(group)
    hungry = python(group, "x = bytearray(200 << 20)")
    assert wait(hungry) == -signal.SIGKILL
    assert wait(bystander) == -signal.SIGKILL
    assert group.oom_kills() >= 2
    remove_soon(group)


@pytest.mark.cgroup("v2")
def test_one_write_ends_a_group_that_forks(v2: HierarchyV2, group: Cgroup) -> None:
    process = start(
        group, "/bin/sh", "-c", "bomb() { bomb | bomb & }; bomb; echo; exec cat", stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(1)
    group.kill()  # once: no fork escapes cgroup.kill
    wait(process)
    remove_soon(group)


@pytest.mark.cgroup("v2")
def test_peak_is_of_this_group_alone(v2: HierarchyV2, group: Cgroup) -> None:
    assert wait(python(group, "x = bytearray(b'1') * (40 << 20)")) == 0
    assert group.memory_peak_bytes() > 40 * MIB
    group.remove()
    again = v2.create("job")
    assert again.memory_peak_bytes() < 4 * MIB
    again.remove()


@pytest.mark.cgroup("v2")
def test_cpu_time_above_the_share_is_throttled_and_counted(v2: HierarchyV2, group: Cgroup) -> None:
    group.limit(memory_bytes=64 * MIB, processes=32, cpu_cores=0.2)
    assert in_v2(v2, "cpu.max") == "20000 100000"
    code = "import time\nwhile time.process_time() < 0.3: pass"
    assert wait(python(group, code)) == 0
    stat = dict(line.split() for line in in_v2(v2, "cpu.stat").splitlines())
    assert int(stat["nr_throttled"]) > 0
    assert group.cpu_seconds() == int(stat["usage_usec"]) / 1e6
    group.remove()
