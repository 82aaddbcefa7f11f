"""cgroup v2 on plain files: what is written, what is read, what is undone."""

import errno
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandrun_executor.cgroups import driver
from sandrun_executor.cgroups.driver import CgroupError
from sandrun_executor.cgroups.v2 import CgroupV2, HierarchyV2

MIB = 1 << 20
FILES = {
    "memory.max": "max\n",
    "memory.high": "max\n",
    "memory.stat": "anon 1\ninactive_file 0\nactive_file 0\nslab_reclaimable 0\n",
    "memory.swap.max": "max\n",
    "memory.oom.group": "0\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n",
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "pids.max": "max\n",
    "cpu.max": "max 100000\n",
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 0\n",
    "cgroup.procs": "",
    "cgroup.kill": "",
    "cgroup.subtree_control": "",
}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Gives every new directory the kernel's files, with which it can be removed."""
    files = dict(FILES)
    mkdir, rmdir = os.mkdir, os.rmdir

    def make(path: str | Path, *arguments: int) -> None:
        mkdir(path, *arguments)
        for name, text in files.items():
            (Path(path) / name).write_text(text)

    def remove(path: str | Path) -> None:
        if (Path(path) / "cgroup.procs").read_text() or any(each.is_dir() for each in Path(path).iterdir()):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        for file in Path(path).iterdir():
            if file.is_file():
                file.unlink()
        rmdir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", make)
        patch.setattr(os, "rmdir", remove)
        yield files


@pytest.fixture
def hierarchy(tmp_path: Path, kernel: dict[str, str]) -> HierarchyV2:
    own = tmp_path / "service"
    own.mkdir()
    return HierarchyV2(tmp_path, own, own / "sandrun-x", swaps=False)


@pytest.fixture
def group(hierarchy: HierarchyV2) -> Iterator[CgroupV2]:
    made = hierarchy.create("job")
    yield made
    if (hierarchy.top / "job").exists():  # else the test removed and closed it
        made.remove()


def written(hierarchy: HierarchyV2, name: str) -> str:
    return (hierarchy.top / "job" / name).read_text()


def test_limits_as_written(hierarchy: HierarchyV2, group: CgroupV2) -> None:
    group.limit(memory_bytes=64 << 20, processes=128, cpu_cores=1.5)
    assert written(hierarchy, "memory.max").startswith(str(64 << 20))
    assert written(hierarchy, "memory.swap.max")[0] == "0"
    assert written(hierarchy, "memory.oom.group")[0] == "1"
    assert written(hierarchy, "pids.max").startswith("128")
    assert written(hierarchy, "cpu.max").startswith("150000 100000")


class FakePoll:
    """A poll object that accepts any file, as plain files have no events."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/null", os.O_RDONLY)
        self.registered: list[tuple[int, int]] = []

    def register(self, fd: int, events: int) -> None:
        self.registered.append((fd, events))

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def watched(group: CgroupV2, monkeypatch: pytest.MonkeyPatch) -> CgroupV2:
    assert group.oom_event_fd == -1
    with monkeypatch.context() as patch:
        patch.setattr(select, "epoll", FakePoll)
        group.limit(memory_bytes=64 * MIB, processes=1, cpu_cores=1.0, watched=True)
    return group


@pytest.mark.parametrize(
    ("limit", "high"), [(64 * MIB, 62 * MIB), (16 * MIB, 15 * MIB), (1024 * MIB, 992 * MIB)]
)
def test_a_watched_group_is_slowed_down_below_its_limit(
    hierarchy: HierarchyV2, watched: CgroupV2, limit: int, high: int
) -> None:
    fd = watched.oom_event_fd
    watched.limit(memory_bytes=limit, processes=1, cpu_cores=1.0, watched=True)
    assert watched.oom_event_fd == fd >= 0
    assert int(written(hierarchy, "memory.max").split()[0]) == limit
    assert int(written(hierarchy, "memory.high").split()[0]) == high


@pytest.mark.parametrize(
    ("used", "files", "slab", "looks"),
    [
        (62 * MIB - 1, 0, 0, [False, False, False]),
        (62 * MIB, 0, 0, [True]),
        (63 * MIB, 1 * MIB, 0, [True]),
        (64 * MIB, 3 * MIB, 0, [False, False, False]),  # files are reclaimed
        (63 * MIB, 0, 2 * MIB, [False, True]),  # of the rest we see whether it was
    ],
)
def test_out_of_memory(
    hierarchy: HierarchyV2, watched: CgroupV2, used: int, files: int, slab: int, looks: list[bool]
) -> None:
    folder = hierarchy.top / "job"
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"inactive_file {files}\nactive_file 0\nslab_reclaimable {slab}\n")
    assert [watched.out_of_memory() for _ in looks] == looks
    (folder / "memory.current").write_text("4096\n")
    assert not watched.out_of_memory()
    assert not watched.was_refused_memory()


def test_no_swap_file_is_fine_where_nothing_swaps(hierarchy: HierarchyV2, kernel: dict[str, str]) -> None:
    del kernel["memory.swap.max"]
    made = hierarchy.create("job")
    made.limit(memory_bytes=1 << 20, processes=1, cpu_cores=1.0)
    assert not (hierarchy.top / "job/memory.swap.max").exists()
    made.remove()


def test_swap_that_cannot_be_limited_is_refused(tmp_path: Path, kernel: dict[str, str]) -> None:
    del kernel["memory.swap.max"]
    (tmp_path / "service").mkdir()
    swapping = HierarchyV2(tmp_path, tmp_path / "service", tmp_path / "service/sandrun-x", swaps=True)
    with pytest.raises(CgroupError, match="swapoff"):
        swapping.create("job")
    assert not (swapping.top / "job").exists()


@pytest.mark.parametrize("missing", ["memory.max", "memory.oom.group", "pids.max", "cpu.max"])
def test_limit_that_cannot_be_set_is_named(
    hierarchy: HierarchyV2, kernel: dict[str, str], missing: str
) -> None:
    del kernel[missing]
    made = hierarchy.create("job")
    with pytest.raises(CgroupError, match=missing):
        made.limit(memory_bytes=1 << 20, processes=1, cpu_cores=1.0)
    made.remove()


def test_counters(group: CgroupV2) -> None:
    assert group.cpu_seconds() == 2.5
    assert group.memory_bytes() == 4096
    assert group.memory_peak_bytes() == 8192
    assert group.oom_kills() == 2
    assert group.pids() == []


BAD = [
    ("cpu.stat", "", CgroupV2.cpu_seconds),
    ("cpu.stat", "user_usec 5\n", CgroupV2.cpu_seconds),
    ("cpu.stat", "usage_usec\n", CgroupV2.cpu_seconds),
    ("cpu.stat", "usage_usec -5\n", CgroupV2.cpu_seconds),
    ("cpu.stat", "usage_usec five\n", CgroupV2.cpu_seconds),
    ("memory.current", "max\n", CgroupV2.memory_bytes),
    ("memory.current", "", CgroupV2.memory_bytes),
    ("memory.peak", "1 2\n", CgroupV2.memory_peak_bytes),
    ("memory.events", "oom 1\noom_group_kill 1\n", CgroupV2.oom_kills),
    ("memory.events", "", CgroupV2.oom_kills),
]


@pytest.mark.parametrize(("name", "text", "read"), BAD)
def test_odd_contents(
    hierarchy: HierarchyV2, group: CgroupV2, name: str, text: str, read: Callable[[CgroupV2], object]
) -> None:
    (hierarchy.top / "job" / name).write_text(text)
    with pytest.raises(CgroupError):
        read(group)


def test_pids(hierarchy: HierarchyV2, group: CgroupV2) -> None:
    file = hierarchy.top / "job/cgroup.procs"
    file.write_text("12\n345\n")
    assert group.pids() == [12, 345]
    file.write_text("")


def test_peak_on_a_kernel_without_it(hierarchy: HierarchyV2, kernel: dict[str, str]) -> None:
    del kernel["memory.peak"]
    made = hierarchy.create("job")
    current = hierarchy.top / "job/memory.current"
    assert made.memory_peak_bytes() == 4096
    for now in ("9000\n", "10\n"):
        current.write_text(now)
        made.memory_bytes()
    assert made.memory_peak_bytes() == 9000
    made.remove()


def test_kill(hierarchy: HierarchyV2, group: CgroupV2) -> None:
    group.kill()
    assert written(hierarchy, "cgroup.kill") == "1"


def test_into_fd_is_the_directory(hierarchy: HierarchyV2, group: CgroupV2) -> None:
    assert os.readlink(f"/proc/self/fd/{group.into_fd}") == str(hierarchy.top / "job")
    assert not os.get_inheritable(group.into_fd)
    assert group.join_fds == ()


def test_what_stays_is_written_once(hierarchy: HierarchyV2, group: CgroupV2) -> None:
    group.limit(memory_bytes=64 << 20, processes=8, cpu_cores=1.0)
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"):
        (hierarchy.top / "job" / name).write_text("untouched")
    group.limit(memory_bytes=64 << 20, processes=9, cpu_cores=1.0)
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max"):
        assert written(hierarchy, name) == "untouched"
    assert written(hierarchy, "pids.max").startswith("9")


def test_limit_that_failed_is_written_again(hierarchy: HierarchyV2, kernel: dict[str, str]) -> None:
    del kernel["pids.max"]
    made = hierarchy.create("job")
    for _ in range(2):
        with pytest.raises(CgroupError, match=r"pids\.max"):
            made.limit(memory_bytes=1 << 20, processes=1, cpu_cores=1.0)
    (hierarchy.top / "job/pids.max").touch()
    made.limit(memory_bytes=1 << 20, processes=1, cpu_cores=1.0)
    assert written(hierarchy, "pids.max") == "1"
    made.remove()


def test_populated_group_stays(hierarchy: HierarchyV2, group: CgroupV2) -> None:
    file = hierarchy.top / "job/cgroup.procs"
    file.write_text("1\n")
    with pytest.raises(CgroupError, match="busy"):
        group.remove()
    assert group.pids() == [1]  # still usable
    file.write_text("")
    group.remove()
    assert not (hierarchy.top / "job").exists()


def test_remove_closes_everything(hierarchy: HierarchyV2) -> None:
    hierarchy.create("first").remove()
    before = os.listdir("/proc/self/fd")
    hierarchy.create("job").remove()
    assert os.listdir("/proc/self/fd") == before


def test_group_that_went_away_is_removed(hierarchy: HierarchyV2, group: CgroupV2) -> None:
    os.rmdir(hierarchy.top / "job")
    before = len(os.listdir("/proc/self/fd"))
    group.remove()
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_failed_create_leaves_nothing(hierarchy: HierarchyV2, kernel: dict[str, str]) -> None:
    hierarchy.prepare()
    del kernel["memory.events"]
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CgroupError, match=r"memory\.events"):
        hierarchy.create("job")
    assert not (hierarchy.top / "job").exists()
    assert os.listdir("/proc/self/fd") == before


def test_existing_group_is_not_taken(hierarchy: HierarchyV2, group: CgroupV2) -> None:
    with pytest.raises(CgroupError, match="exists"):
        hierarchy.create("job")
    assert (hierarchy.top / "job").is_dir()


# Handing controllers down


def test_ours_move_into_a_leaf_first(hierarchy: HierarchyV2, monkeypatch: pytest.MonkeyPatch) -> None:
    (hierarchy.own / "cgroup.procs").write_text("10\n11\n")
    order = []
    write = Path.write_text

    def record(path: Path, text: str) -> int:
        order.append((str(path.relative_to(hierarchy.own)), text))
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", record)
    hierarchy.prepare()
    wanted = "+cpu +memory +pids"
    steps = [step for step in order if step[1] in {"10", "11", wanted}]
    assert steps == [
        ("supervisor/cgroup.procs", "10"),
        ("supervisor/cgroup.procs", "11"),
        ("cgroup.subtree_control", wanted),
        ("sandrun-x/cgroup.subtree_control", wanted),
    ]


def test_nothing_moves_at_the_root(tmp_path: Path, kernel: dict[str, str]) -> None:
    for name, text in kernel.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "cgroup.procs").write_text("1\n2\n")
    HierarchyV2(tmp_path, tmp_path, tmp_path / "sandrun-x", False).prepare()
    assert not (tmp_path / "supervisor").exists()
    assert (tmp_path / "cgroup.procs").read_text() == "1\n2\n"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_ours_move_at_a_containers_root(tmp_path: Path, kernel: dict[str, str]) -> None:
    for name, text in {**kernel, "cgroup.type": "domain\n", "cgroup.procs": "1\n"}.items():
        (tmp_path / name).write_text(text)
    HierarchyV2(tmp_path, tmp_path, tmp_path / "sandrun-x", False).prepare()
    assert (tmp_path / "supervisor/cgroup.procs").read_text() == "1"


def test_half_made_top_is_undone(
    hierarchy: HierarchyV2, monkeypatch: pytest.MonkeyPatch, removable: None
) -> None:
    write = Path.write_text

    def refuse(path: Path, text: str) -> int:
        if path.parent == hierarchy.top and path.name == "cgroup.subtree_control" and text:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        with pytest.raises(CgroupError, match="busy"):
            hierarchy.create("job")
    assert not hierarchy.top.exists()
    hierarchy.create("job").remove()


def test_prepare_happens_once(hierarchy: HierarchyV2) -> None:
    hierarchy.create("one").remove()
    control = hierarchy.own / "cgroup.subtree_control"
    control.write_text("")
    hierarchy.create("two").remove()
    assert control.read_text() == ""


@pytest.mark.parametrize("offered", ["cpu memory pids hugetlb", "cpu memory pids"])
def test_no_huge_page_where_the_controller_is(
    hierarchy: HierarchyV2, kernel: dict[str, str], offered: str
) -> None:
    names = ("hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.1GB.max")
    kernel |= dict.fromkeys(names, "max")
    (hierarchy.own / "cgroup.controllers").write_text(offered + "\n")
    hierarchy.prepare()
    is_there = "hugetlb" in offered
    assert ((hierarchy.own / "cgroup.subtree_control").read_text() == "+hugetlb") == is_there
    found = {(hierarchy.top / name).read_text() for name in names}
    assert found == ({"0"} if is_there else {"max"})


def test_controllers_that_cannot_be_handed_down(hierarchy: HierarchyV2) -> None:
    os.rmdir(hierarchy.own)
    with pytest.raises(CgroupError, match="Delegate=cpu memory pids"):
        hierarchy.create("job")


# What a predecessor left


@pytest.fixture
def removable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rmdir", os.rmdir)


def test_sweep_removes_wherever_it_ran(hierarchy: HierarchyV2, removable: None) -> None:
    hierarchy.prepare()
    for folder in (hierarchy.top / "a", hierarchy.top / "b"):
        folder.mkdir()
    elsewhere = hierarchy.mount / "old.service"
    elsewhere.mkdir()
    (elsewhere / "sandrun-x").mkdir()
    (elsewhere / "sandrun-y").mkdir()
    assert hierarchy.sweep() == 4
    assert not hierarchy.top.exists()
    assert not (elsewhere / "sandrun-x").exists()
    assert (elsewhere / "sandrun-y").is_dir()
    assert hierarchy.sweep() == 0


def test_sweep_gives_up_on_a_busy_group(
    hierarchy: HierarchyV2,
    removable: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(driver, "_living", lambda group: [])
    monkeypatch.setattr(driver, "_SWEEP_SECONDS", 0.05)
    hierarchy.prepare()
    procs = hierarchy.top / "cgroup.procs"
    procs.write_text("1\n")
    assert hierarchy.sweep() == 0
    assert "does not die: 1 cgroups stay" in caplog.text
    procs.write_text("")


def test_sweep_waits_for_processes_that_are_shown_no_more_but_not_gone(
    hierarchy: HierarchyV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_living", lambda group: [])
    monkeypatch.setattr(driver, "_SWEEP_PAUSE_MS", 0)
    busy = {"a": 500, "b": 3}

    def rmdir(path: Path) -> None:
        if busy.get(path.name):
            busy[path.name] -= 1
            raise OSError(errno.EBUSY, "busy")
        os.rmdir(path)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    hierarchy.prepare()
    for name in busy:
        (hierarchy.top / name).mkdir()
    assert hierarchy.sweep() == 3
