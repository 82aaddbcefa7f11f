"""Find the cgroups of this machine: v2 with its controllers, else v1, else refuse."""

import re
from pathlib import Path

from sandrun_executor.cgroups import v1, v2
from sandrun_executor.cgroups.driver import Cgroup, CgroupError, Hierarchy, has_swap
from sandrun_executor.cgroups.v1 import HierarchyV1
from sandrun_executor.cgroups.v2 import HierarchyV2

__all__ = ["Cgroup", "CgroupError", "Hierarchy", "mounts_in", "probe"]
_ESCAPED = re.compile(r"\\([0-7]{3})")  # a space is \040 (getmntent(3))


def _own_groups(proc_self_cgroup: Path) -> dict[str, str]:
    """Controller → path of our group; "" is v2's (cgroups(7), /proc/pid/cgroup)."""
    groups = {}
    for line in proc_self_cgroup.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def mounts_in(text: str) -> tuple[Path | None, dict[str, Path]]:
    """Find where cgroup2 and each v1 controller are mounted, from /proc/self/mounts (proc_pid_mounts(5))."""
    unified, legacy = None, {}
    for line in text.splitlines():
        _, target, kind, options = line.split(" ")[:4]
        path = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), target))
        if kind == "cgroup2":
            unified = path
        elif kind == "cgroup":
            for option in options.split(","):
                legacy[option] = path
    return unified, legacy


def _below(mount: Path, group: str) -> Path:
    """Our group's directory; a container's group above the mount's root shows as /../…"""
    path = mount / group.lstrip("/")
    return path if ".." not in path.parts and path.is_dir() else mount


def _offered(group: Path) -> list[str]:
    try:
        return (group / "cgroup.controllers").read_text().split()
    except OSError:
        return []


def probe(
    instance: str,
    proc_self_cgroup: Path = Path("/proc/self/cgroup"),
    proc_mounts: Path = Path("/proc/self/mounts"),
    proc_swaps: Path = Path("/proc/swaps"),
) -> Hierarchy:
    """The hierarchy for executor `instance`. Raises CgroupError naming what is missing."""
    unified, legacy = mounts_in(proc_mounts.read_text())
    groups = _own_groups(proc_self_cgroup)
    name = f"sandrun-{instance}"
    missing = [controller for controller in v1.CONTROLLERS if controller not in legacy]
    if unified is not None:
        own = _below(unified, groups.get("", "/"))
        if own.name == v2.SUPERVISOR:
            own = own.parent
        offered = _offered(own)
        lacking = [controller for controller in v2.CONTROLLERS if controller not in offered]
        if not lacking:
            return HierarchyV2(unified, own, own / name, has_swap(proc_swaps))
        if len(missing) == len(v1.CONTROLLERS):
            missing = lacking  # this machine has no v1 at all
    if missing:
        raise CgroupError(
            f"no cgroup controller {', '.join(missing)}: boot with cgroup v2"
            " (systemd.unified_cgroup_hierarchy=1) and, under systemd, set Delegate=cpu memory pids"
        )
    controllers = (*v1.CONTROLLERS, v1.HUGE_PAGES)
    mounts = {controller: legacy[controller] for controller in controllers if controller in legacy}
    tops = {
        controller: _below(mount, groups.get(controller, "/")) / name for controller, mount in mounts.items()
    }
    swap_files = (tops["memory"].parent / "memory.memsw.limit_in_bytes").exists()
    if not swap_files and has_swap(proc_swaps):
        raise CgroupError("swap is on and cannot be limited: boot with swapaccount=1, or swapoff -a")
    return HierarchyV1(mounts, tops, swap_files)
