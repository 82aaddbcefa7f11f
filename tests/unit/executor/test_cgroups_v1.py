"""cgroup v1 on plain files: what is written and in which order, what is read, what is undone, what is swept."""

import errno
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_executor.cgroups import driver, v1
from sandrun_executor.cgroups.driver import CgroupError
from sandrun_executor.cgroups.v1 import CONTROLLERS, CgroupV1, HierarchyV1

UNLIMITED = "9223372036854771712"
FILES = {
    "tasks": "",
    "cgroup.procs": "",
    "cgroup.event_control": "",
    "memory.limit_in_bytes": UNLIMITED,
    "memory.memsw.limit_in_bytes": UNLIMITED,
    "memory.swappiness": "60",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "memory.stat": "cache 4096\nactive_file 100\ninactive_file 200\n",
    "memory.usage_in_bytes": "4096\n",
    "memory.max_usage_in_bytes": "8192\n",
    "pids.max": "max\n",
    "cpu.cfs_quota_us": "-1\n",
    "cpu.cfs_period_us": "100000\n",
    "cpuacct.usage": "2500000000\n",
}
Kernel = tuple[dict[str, str], list[tuple[str, str]]]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """Gives every new directory the kernel's files, and records each written value in order."""
    files, writes = dict(FILES), []
    mkdir, rmdir, write = os.mkdir, os.rmdir, driver.write_text

    def make(path: str | Path, *arguments: int) -> None:
        mkdir(path, *arguments)
        for name, text in files.items():
            (Path(path) / name).write_text(text)

    def remove(path: str | Path) -> None:
        if (Path(path) / "cgroup.procs").read_text():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        for file in Path(path).iterdir():
            file.unlink()
        rmdir(path)

    def record(dir_fd: int, name: str, value: str) -> None:
        writes.append((name, value))
        write(dir_fd, name, value.ljust(len(UNLIMITED)))  # a plain file keeps the tail of a longer value

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", make)
        patch.setattr(os, "rmdir", remove)
        patch.setattr(v1, "write_text", record)
        yield files, writes


def machine(folder: Path, co_mounted: bool = False) -> HierarchyV1:
    names = {c: "cpu,cpuacct" if co_mounted and c.startswith("cpu") else c for c in CONTROLLERS}
    mounts = {controller: folder / name for controller, name in names.items()}
    for mount in mounts.values():
        mount.mkdir(exist_ok=True)
    return HierarchyV1(mounts, {c: mount / "sandrun-x" for c, mount in mounts.items()}, limit_swap=True)


@pytest.fixture
def hierarchy(tmp_path: Path, kernel: Kernel) -> HierarchyV1:
    return machine(tmp_path)


@pytest.fixture
def group(hierarchy: HierarchyV1) -> Iterator[CgroupV1]:
    made = hierarchy.create("job")
    yield made
    if (hierarchy.tops["memory"] / "job").exists():  # else the test removed and closed it
        made.remove()


def limits(writes: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [each for each in writes if "limit" in each[0]]


def test_limits_as_written(kernel: Kernel, group: CgroupV1) -> None:
    kernel[1].clear()
    group.limit(memory_bytes=64 << 20, processes=128, cpu_cores=1.5)
    assert kernel[1] == [
        ("memory.limit_in_bytes", str(64 << 20)),
        ("memory.memsw.limit_in_bytes", str(64 << 20)),
        ("pids.max", "128"),
        ("cpu.cfs_quota_us", "150000"),
    ]


def test_the_killer_is_kept_out_of_a_watched_group(kernel: Kernel, group: CgroupV1) -> None:
    kernel[1].clear()
    group.limit(memory_bytes=64 << 20, processes=128, cpu_cores=1.5, watched=True)
    assert kernel[1][0] == ("memory.oom_control", "1")


LIMIT = 64 << 20
NEAR = LIMIT - (256 << 10)


@pytest.mark.parametrize(
    ("waiting", "used", "peak", "cached", "out", "refused"),
    [
        (0, 4096, 8192, 0, False, False),
        (2, 4096, 8192, 0, True, False),  # processes wait for memory
        (0, NEAR, NEAR, 0, True, True),
        (0, NEAR - 1, NEAR, 0, False, True),
        (0, LIMIT, LIMIT, 1 << 20, False, False),  # what is cached of files could be reclaimed
        (0, 4096, LIMIT, 4096, False, True),
    ],
)
def test_out_of_memory(
    hierarchy: HierarchyV1,
    group: CgroupV1,
    *,
    waiting: int,
    used: int,
    peak: int,
    cached: int,
    out: bool,
    refused: bool,
) -> None:
    group.limit(memory_bytes=LIMIT, processes=1, cpu_cores=1.0, watched=True)
    folder = hierarchy.tops["memory"] / "job"
    (folder / "memory.oom_control").write_text(f"oom_kill_disable 1\nunder_oom {waiting}\noom_kill 0\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.max_usage_in_bytes").write_text(f"{peak}\n")
    (folder / "memory.stat").write_text(f"active_file {cached}\ninactive_file 0\n")
    os.eventfd_write(group.oom_event_fd, 1)
    for _ in range(2):
        assert group.out_of_memory() is out
        assert select.select([group.oom_event_fd], [], [], 0)[0] == []
    assert group.was_refused_memory() is refused


def test_swap_is_raised_first_and_lowered_last(kernel: Kernel, group: CgroupV1) -> None:
    group.limit(memory_bytes=1000, processes=1, cpu_cores=1.0)
    for size, first in ((2000, "memory.memsw.limit_in_bytes"), (500, "memory.limit_in_bytes")):
        kernel[1].clear()
        group.limit(memory_bytes=size, processes=1, cpu_cores=1.0)
        assert [value for _, value in limits(kernel[1])] == [str(size)] * 2
        assert limits(kernel[1])[0][0] == first


def test_nothing_is_swapped_out(hierarchy: HierarchyV1, group: CgroupV1) -> None:
    assert (hierarchy.tops["memory"] / "memory.swappiness").read_text() == "0"


def test_a_kernel_without_swappiness_is_fine(hierarchy: HierarchyV1, kernel: Kernel) -> None:
    del kernel[0]["memory.swappiness"]
    hierarchy._make_tops()
    hierarchy.create("job").remove()


def test_socket_buffers_have_a_limit_where_the_kernel_counts_them(
    hierarchy: HierarchyV1, kernel: Kernel
) -> None:
    name = "memory.kmem.tcp.limit_in_bytes"
    kernel[0][name] = UNLIMITED
    made = hierarchy.create("job")
    for size in (64 << 20, 128 << 20):
        kernel[1].clear()
        made.limit(memory_bytes=size, processes=1, cpu_cores=1.0)
        assert (name, str(size // 4)) in kernel[1]
    made.remove()


def test_every_job_joins_the_group_without_huge_pages(tmp_path: Path, kernel: Kernel) -> None:
    kernel[0].update({"hugetlb.2MB.limit_in_bytes": UNLIMITED, "hugetlb.2MB.rsvd.limit_in_bytes": UNLIMITED})
    plain = machine(tmp_path)
    (tmp_path / "hugetlb").mkdir()
    top = tmp_path / "hugetlb/sandrun-x"
    hierarchy = HierarchyV1(
        {**plain.mounts, "hugetlb": tmp_path / "hugetlb"}, {**plain.tops, "hugetlb": top}, True
    )
    before = os.listdir("/proc/self/fd")
    made = hierarchy.create("job")
    joined = [os.readlink(f"/proc/self/fd/{fd}") for fd in made.join_fds]
    assert joined[len(CONTROLLERS) :] == [str(top / "tasks")]
    assert {path.read_text() for path in top.glob("hugetlb.*")} == {"0"}
    made.remove()
    assert os.listdir("/proc/self/fd") == before
    assert top.is_dir()


def test_joins_every_controller(hierarchy: HierarchyV1, group: CgroupV1) -> None:
    paths = [os.readlink(f"/proc/self/fd/{fd}") for fd in group.join_fds]
    assert paths == [str(hierarchy.tops[controller] / "job/tasks") for controller in CONTROLLERS]
    assert not any(map(os.get_inheritable, group.join_fds))
    assert group.into_fd is None


def test_co_mounted_controllers_share_a_group(tmp_path: Path, kernel: Kernel) -> None:
    made = machine(tmp_path, co_mounted=True).create("job")
    assert len(made.join_fds) == 3
    made.limit(memory_bytes=1 << 20, processes=1, cpu_cores=1.0)
    assert made.cpu_seconds() == 2.5
    made.remove()


def test_counters(group: CgroupV1) -> None:
    assert group.cpu_seconds() == 2.5
    assert group.memory_bytes() == 4096
    assert group.memory_peak_bytes() == 8192
    assert group.oom_kills() == 3
    assert group.pids() == []


def test_a_kernel_that_counts_no_kills(hierarchy: HierarchyV1, group: CgroupV1) -> None:
    (hierarchy.tops["memory"] / "job/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
    with pytest.raises(CgroupError, match="no field oom_kill"):
        group.oom_kills()


@pytest.mark.parametrize("missing", ["tasks", "cpuacct.usage", "memory.oom_control", "cgroup.event_control"])
def test_failed_create_leaves_nothing(hierarchy: HierarchyV1, kernel: Kernel, missing: str) -> None:
    hierarchy.create("warm").remove()
    del kernel[0][missing]
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CgroupError, match=missing):
        hierarchy.create("job")
    assert [top for top in hierarchy.tops.values() if (top / "job").exists()] == []
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    "missing", ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max", "cpu.cfs_quota_us"]
)
def test_limit_that_cannot_be_set_is_named(hierarchy: HierarchyV1, kernel: Kernel, missing: str) -> None:
    del kernel[0][missing]
    made = hierarchy.create("job")
    with pytest.raises(CgroupError, match=missing):
        made.limit(memory_bytes=1 << 20, processes=1, cpu_cores=1.0)
    made.remove()


def test_tops_that_went_away_are_made_again(hierarchy: HierarchyV1) -> None:
    hierarchy.create("one").remove()
    os.rmdir(hierarchy.tops["pids"])
    hierarchy.create("two").remove()


# Ending processes: the numbers in the files are made up, the processes are real.


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sh", "-c", "read forever"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


def list_it(group: Path, pid: int) -> None:
    (group / "cgroup.procs").write_text(f"{pid}\n")


def test_kill_ends_what_is_listed(
    hierarchy: HierarchyV1, group: CgroupV1, process: subprocess.Popen[bytes]
) -> None:
    list_it(hierarchy.tops["pids"] / "job", process.pid)
    group.kill()
    assert process.wait(20) == -signal.SIGKILL
    (hierarchy.tops["pids"] / "job/cgroup.procs").write_text("")


def test_a_number_that_is_no_longer_listed_is_spared(process: subprocess.Popen[bytes]) -> None:
    fds = driver.send_kill([process.pid], list)
    assert select.select(fds, [], [], 0)[0] == []
    for fd in fds:
        os.close(fd)
    assert process.poll() is None


def test_a_process_that_just_ended_is_no_error() -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        ended.wait()
    assert driver.send_kill([ended.pid], lambda: [ended.pid]) == []


def test_a_list_that_cannot_be_read_leaves_no_descriptor(process: subprocess.Popen[bytes]) -> None:
    def unreadable() -> list[int]:
        raise CgroupError("gone")

    before = os.listdir("/proc/self/fd")
    with pytest.raises(CgroupError):
        driver.send_kill([process.pid], unreadable)
    assert os.listdir("/proc/self/fd") == before
    assert process.poll() is None


# What a predecessor left


@pytest.fixture
def removable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove a directory with its files, as the kernel does for a cgroup."""
    monkeypatch.setattr(Path, "rmdir", os.rmdir)


def test_sweep_ends_and_removes_in_every_controller(
    hierarchy: HierarchyV1,
    removable: None,
    process: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hierarchy.create("job")
    job = hierarchy.tops["pids"] / "job"
    pidfd = os.pidfd_open(process.pid)

    def living(group: Path) -> list[int]:
        if group != job or select.select([pidfd], [], [], 0)[0]:
            return []
        return [process.pid]

    monkeypatch.setattr(driver, "_living", living)
    assert hierarchy.sweep() == 8  # the top group and the job's, of four controllers
    os.close(pidfd)
    assert process.wait(20) == -signal.SIGKILL
    assert not any(top.exists() for top in hierarchy.tops.values())


def test_sweep_stops_forks_first(
    hierarchy: HierarchyV1, removable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hierarchy.create("job")
    seen = []

    def living(group: Path) -> list[int]:
        seen.append((group / "pids.max").read_text()[0])
        return []

    monkeypatch.setattr(driver, "_living", living)
    hierarchy.sweep()
    assert set(seen) == {"0"}
