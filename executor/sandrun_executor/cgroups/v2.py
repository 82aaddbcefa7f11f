"""cgroup v2 (Documentation/admin-guide/cgroup-v2.rst): one group for each job."""

import os
import select
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from sandrun_executor.cgroups.driver import CgroupError, field, kill_each, read_text, remove_tree, write_text

CONTROLLERS = ("cpu", "memory", "pids")
HUGE_PAGES = "hugetlb"  # container engines delegate it, systemd does not
SUPERVISOR = "supervisor"
_PERIOD_US = 100_000
# The fraction of the limit, at its top, in which a watched group is slowed down and then killed. It is so
# large that the kernel delays an allocating process by tens of milliseconds for each 256 KiB
# (calculate_high_delay in mm/memcontrol.c).
_MARGIN_PART, _SMALLEST_MARGIN = 32, 1 << 20
_LOOKS = 2  # at memory that the kernel should reclaim between them


class CgroupV2:
    """The group of one job."""

    join_fds: tuple[int, ...] = ()

    def __init__(self, path: str, limit_swap: bool) -> None:
        """Make the directory. Raises CgroupError; nothing is left then."""
        self._path = path
        self._limit_swap = limit_swap
        self._most_seen = 0
        self._high = 0
        self._looks = 0
        self._poll: select.epoll | None = None
        self.oom_event_fd = -1
        self._written: dict[str, str] = {}
        with ExitStack() as undo:
            try:
                os.mkdir(path)
                undo.callback(os.rmdir, path)
                self._dir = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                undo.callback(os.close, self._dir)
                self._events = os.open("memory.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._dir)
                undo.callback(os.close, self._events)
            except OSError as error:
                raise CgroupError(f"cannot make the cgroup of a job: {error}") from error
            undo.pop_all()
        self._open_fds = [self._events, self._dir]

    @property
    def into_fd(self) -> int:
        """The directory for clone3(CLONE_INTO_CGROUP)."""
        return self._dir

    def limit(self, *, memory_bytes: int, processes: int, cpu_cores: float, watched: bool = False) -> None:
        """Set or change the limits: no swap; out of memory, the whole group dies. Raises CgroupError."""
        self._set("memory.max", str(memory_bytes))
        if watched:
            self._watch()
            self._high = memory_bytes - max(memory_bytes // _MARGIN_PART, _SMALLEST_MARGIN)
            self._set("memory.high", str(self._high))
        if self._limit_swap:
            self._set("memory.swap.max", "0")
        self._set("memory.oom.group", "1")
        self._set("pids.max", str(processes))
        self._set("cpu.max", f"{int(cpu_cores * _PERIOD_US)} {_PERIOD_US}")

    def _watch(self) -> None:
        """Make a descriptor that is readable after an event; the file itself always is (poll(2), POLLPRI)."""
        if self._poll is None:
            self._poll = select.epoll()
            self.oom_event_fd = self._poll.fileno()
            self._poll.register(self._events, select.EPOLLPRI)
            self.oom_kills()  # resets the events

    def _set(self, name: str, value: str) -> None:
        if self._written.get(name) != value:
            write_text(self._dir, name, value)
            self._written[name] = value

    def _number(self, name: str) -> int:
        text = read_text(self._dir, name).strip()
        if not text.isdigit():
            raise CgroupError(f"{name} is not a number")
        return int(text)

    def cpu_seconds(self) -> float:
        """CPU time of all processes the group ever had."""
        return field(read_text(self._dir, "cpu.stat"), "usage_usec") / 1e6

    def memory_bytes(self) -> int:
        """Memory charged now."""
        now = self._number("memory.current")
        self._most_seen = max(self._most_seen, now)
        return now

    def memory_peak_bytes(self) -> int:
        """The most memory ever charged (memory.peak, Linux 5.19), on older kernels the most that was seen."""
        if os.access("memory.peak", os.F_OK, dir_fd=self._dir):
            return self._number("memory.peak")
        self.memory_bytes()
        return self._most_seen

    def oom_kills(self) -> int:
        """How many processes the kernel's out-of-memory killer ended here."""
        return field(os.pread(self._events, 4096, 0).decode(), "oom_kill")

    def out_of_memory(self) -> bool:
        """Whether more than memory.high is in use and cannot be reclaimed."""
        self.oom_kills()  # resets the events
        stat = read_text(self._dir, "memory.stat")
        used = self._number("memory.current") - field(stat, "inactive_file") - field(stat, "active_file")
        if not self._high or used < self._high:
            self._looks = 0
            return False
        # The count includes kernel memory that can be reclaimed; the event came before the kernel tried.
        self._looks += 1
        return self._looks >= _LOOKS or used - field(stat, "slab_reclaimable") >= self._high

    def was_refused_memory(self) -> bool:
        """Whether system calls failed for want of memory: never, because v2 kills the caller instead."""
        return False

    def pids(self) -> list[int]:
        """The processes in the group."""
        return [int(line) for line in read_text(self._dir, "cgroup.procs").split()]

    def kill(self, spared: int = 0) -> None:
        """Send SIGKILL to everything in the group (cgroup.kill, Linux 5.14), or to all but one process."""
        if spared:
            kill_each(self.pids, spared)
        else:
            write_text(self._dir, "cgroup.kill", "1")

    def remove(self) -> None:
        """Remove the group. Raises CgroupError while a process is left."""
        try:
            os.rmdir(self._path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CgroupError(f"{self._path}: {error.strerror}") from error
        self.close()

    def close(self) -> None:
        """Close the descriptors; the directory stays. Harmless a second time."""
        if self._poll is not None:
            self._poll.close()
        while self._open_fds:
            os.close(self._open_fds.pop())


@dataclass(frozen=True)
class HierarchyV2:
    """This executor's groups, below the group that was delegated to it."""

    mount: Path
    own: Path  # the delegated group
    top: Path  # own/sandrun-<instance>
    swaps: bool  # whether the machine has swap at all
    version: int = 2

    def prepare(self) -> None:
        """Hand the controllers down. Raises CgroupError.

        A group that has processes may not delegate controllers, so ours move into a leaf first. The machine's
        real root group is the exception; it alone has no cgroup.type, which a container's root has.
        """
        try:
            supervisor = self.own / SUPERVISOR
            if self.own != self.mount or (self.own / "cgroup.type").exists():
                supervisor.mkdir(exist_ok=True)
                for pid in (self.own / "cgroup.procs").read_text().split():
                    with suppress(ProcessLookupError):
                        (supervisor / "cgroup.procs").write_text(pid)
            wanted = " ".join(f"+{controller}" for controller in CONTROLLERS)
            (self.own / "cgroup.subtree_control").write_text(wanted)
            self.top.mkdir(exist_ok=True)
            (self.top / "cgroup.subtree_control").write_text(wanted)
            self._forbid_huge_pages()
        except OSError as error:
            with suppress(OSError):
                self.top.rmdir()
            raise CgroupError(
                f"cannot hand cgroup controllers down: {error};"
                " run under systemd with Delegate=cpu memory pids"
            ) from error

    def _forbid_huge_pages(self) -> None:
        """Forbid our groups to use or reserve huge pages, if the controller was delegated to us."""
        offered = self.own / "cgroup.controllers"
        if offered.exists() and HUGE_PAGES in offered.read_text().split():
            (self.own / "cgroup.subtree_control").write_text(f"+{HUGE_PAGES}")
            for limit in self.top.glob("hugetlb.*.max"):
                limit.write_text("0")

    def create(self, name: str) -> CgroupV2:
        """The group of one job. Raises CgroupError."""
        if not self.top.is_dir():
            self.prepare()
        limit_swap = (self.top / "memory.swap.max").exists()
        if self.swaps and not limit_swap:
            raise CgroupError("swap is on and cannot be limited: boot with swapaccount=1, or swapoff -a")
        return CgroupV2(f"{self.top}/{name}", limit_swap)

    def sweep(self) -> int:
        """Kill and remove every group of this executor, in whichever parent it ran; returns how many."""
        return remove_tree(self.mount, self.top.name)
