"""Which cgroups are chosen, from /proc files and mounts that are plain files."""

from pathlib import Path

import pytest

from sandrun_executor.cgroups import probe as cgroups
from sandrun_executor.cgroups.driver import CgroupError, has_swap
from sandrun_executor.cgroups.v1 import HierarchyV1
from sandrun_executor.cgroups.v2 import HierarchyV2

NO_SWAP = "Filename\tType\tSize\tUsed\tPriority\n"
SWAP = NO_SWAP + "/dev/sda2 partition 1000 0 -2\n"
V1 = ("memory", "pids", "cpu", "cpuacct")


class Machine:
    """A machine's mounts and /proc files below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounts: list[str] = ["proc /proc proc rw,nosuid 0 0"]
        self.groups: list[str] = []
        self.swaps = NO_SWAP

    def unified(self, group: str, controllers: str) -> Path:
        mount = self.folder / "unified"
        own = mount / group.lstrip("/")
        own.mkdir(parents=True, exist_ok=True)
        (own / "cgroup.controllers").write_text(controllers + "\n")
        self.mounts.append(f"cgroup2 {mount} cgroup2 rw,nsdelegate 0 0")
        self.groups.append(f"0::{group}")
        return own

    def legacy(self, controllers: str, group: str = "/", *files: str) -> Path:
        mount = self.folder / controllers
        own = mount / group.lstrip("/")
        own.mkdir(parents=True)
        for name in files:
            (own / name).touch()
        self.mounts.append(f"cgroup {mount} cgroup rw,relatime,{controllers} 0 0")
        self.groups.append(f"{len(self.groups) + 1}:{controllers}:{group}")
        return mount

    def probe(self) -> cgroups.Hierarchy:
        texts = {
            "cgroup": "".join(line + "\n" for line in self.groups),
            "mounts": "".join(line + "\n" for line in self.mounts),
            "swaps": self.swaps,
        }
        for name, text in texts.items():
            (self.folder / name).write_text(text)
        return cgroups.probe("x", *(self.folder / name for name in texts))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_v2_with_all_controllers(machine: Machine) -> None:
    own = machine.unified("/system.slice/sandrun.service", "cpuset cpu io memory hugetlb pids")
    assert machine.probe() == HierarchyV2(machine.folder / "unified", own, own / "sandrun-x", False)


def test_v2_at_the_root(machine: Machine) -> None:
    own = machine.unified("/", "cpu memory pids")
    assert machine.probe() == HierarchyV2(own, own, own / "sandrun-x", False)


def test_v2_again_from_the_supervisors_leaf(machine: Machine) -> None:
    machine.unified("/service/supervisor", "cpu memory pids")
    own = machine.unified("/service", "cpu memory pids")
    machine.groups = ["0::/service/supervisor"]
    made = machine.probe()
    assert isinstance(made, HierarchyV2)
    assert made.own == own


def test_v2_knows_about_swap(machine: Machine) -> None:
    machine.unified("/", "cpu memory pids")
    machine.swaps = SWAP
    made = machine.probe()
    assert isinstance(made, HierarchyV2)
    assert made.swaps


@pytest.mark.parametrize("group", ["/../outside", "/not/here"])
def test_group_above_the_mount_means_the_mount(machine: Machine, group: str) -> None:
    own = machine.unified("/", "cpu memory pids")
    machine.groups = [f"0::{group}"]
    made = machine.probe()
    assert isinstance(made, HierarchyV2)
    assert made.own == own


def test_hybrid_takes_v1(machine: Machine) -> None:
    machine.unified("/", "")
    for controller in V1:
        machine.legacy(controller)
    made = machine.probe()
    assert isinstance(made, HierarchyV1)
    assert made.mounts == {controller: machine.folder / controller for controller in V1}
    assert made.tops == {controller: machine.folder / controller / "sandrun-x" for controller in V1}


def test_v1_with_huge_pages(machine: Machine) -> None:
    for controller in (*V1, "hugetlb"):
        machine.legacy(controller)
    made = machine.probe()
    assert isinstance(made, HierarchyV1)
    assert made.mounts["hugetlb"] == machine.folder / "hugetlb"
    assert made.tops["hugetlb"] == machine.folder / "hugetlb/sandrun-x"


def test_v1_groups_are_our_own(machine: Machine) -> None:
    machine.legacy("memory", "/container/abc")
    machine.legacy("pids", "/pods")
    machine.legacy("cpu,cpuacct")
    made = machine.probe()
    assert isinstance(made, HierarchyV1)
    assert made.tops["memory"] == machine.folder / "memory/container/abc/sandrun-x"
    assert made.tops["pids"] == machine.folder / "pids/pods/sandrun-x"
    assert made.tops["cpu"] == made.tops["cpuacct"] == machine.folder / "cpu,cpuacct/sandrun-x"


@pytest.mark.parametrize("missing", V1)
def test_missing_v1_controller_is_named(machine: Machine, missing: str) -> None:
    machine.unified("/", "cpuset")
    for controller in V1:
        if controller != missing:
            machine.legacy(controller)
    with pytest.raises(CgroupError, match=f"controller {missing}:.*Delegate"):
        machine.probe()


@pytest.mark.parametrize("missing", ["cpu", "memory", "pids"])
def test_missing_v2_controller_is_named(machine: Machine, missing: str) -> None:
    offered = " ".join({"cpu", "memory", "pids"} - {missing})
    machine.unified("/", offered)
    with pytest.raises(CgroupError) as caught:
        machine.probe()
    named = str(caught.value).partition(":")[0].removeprefix("no cgroup controller ").split(", ")
    assert named == [missing]


def test_v2_group_without_controllers_file(machine: Machine) -> None:
    (machine.unified("/service", "") / "cgroup.controllers").unlink()
    with pytest.raises(CgroupError, match="controller"):
        machine.probe()


def test_no_cgroups_at_all(machine: Machine) -> None:
    with pytest.raises(CgroupError, match="controller"):
        machine.probe()


def test_v1_swap_that_cannot_be_limited_is_refused(machine: Machine) -> None:
    for controller in V1:
        machine.legacy(controller)
    machine.swaps = SWAP
    with pytest.raises(CgroupError, match=r"swapaccount=1.*swapoff"):
        machine.probe()


def test_v1_swap_that_can_be_limited(machine: Machine) -> None:
    for controller in V1:
        machine.legacy(controller, "/", "memory.memsw.limit_in_bytes")
    machine.swaps = SWAP
    made = machine.probe()
    assert isinstance(made, HierarchyV1)
    assert made.limit_swap


def test_a_mount_point_may_have_a_space_in_its_name() -> None:
    text = "none /a\\040b/\u00e9 cgroup2 rw 0 0\ncgroup /c\\011\\134d cgroup rw,memory 0 0\n"
    unified, legacy = cgroups.mounts_in(text)
    assert unified == Path("/a b/\u00e9")
    assert legacy["memory"] == Path("/c\t\\d")


def test_has_swap(tmp_path: Path) -> None:
    for text, answer in ((NO_SWAP, False), (SWAP, True), ("", False)):
        (tmp_path / "swaps").write_text(text)
        assert has_swap(tmp_path / "swaps") is answer
