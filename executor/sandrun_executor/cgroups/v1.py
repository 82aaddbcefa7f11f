"""cgroup v1 (Documentation/admin-guide/cgroup-v1): one group per controller for each job."""

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from sandrun_executor.cgroups.driver import CgroupError, field, kill_each, read_text, remove_tree, write_text

CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
HUGE_PAGES = "hugetlb"  # where it is mounted, one group denies huge pages to all jobs
_PERIOD_US = 100_000
# The kernel charges 64 pages at a time on each processor.
_ROUNDING_BYTES = 256 << 10
# v1 counts the buffers of TCP and UDP apart from other memory, and only if they have a limit. Without one,
# only the machine as a whole bounds them (net.ipv4.tcp_mem, udp_mem), so one job could use up everything.
_SOCKETS = "memory.kmem.tcp.limit_in_bytes"
_SOCKETS_SHARE = 4  # socket buffers may have this fraction of the job's memory in addition


class CgroupV1:
    """The groups of one job, one directory per controller (co-mounted controllers share one)."""

    into_fd = None

    def __init__(self, folders: dict[str, str], limit_swap: bool, shared: str | None = None) -> None:
        """Make the directories. Raises CgroupError; nothing is left then.

        shared: a group that all jobs join.
        """
        self._folders = folders
        self._limit_swap = limit_swap
        self._fds: dict[str, int] = {}
        self._written: dict[str, int] = {}
        with ExitStack() as undo:
            try:
                for controller, path in folders.items():
                    if path not in (folders[c] for c in self._fds):
                        os.mkdir(path)
                        undo.callback(os.rmdir, path)
                    self._fds[controller] = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                    undo.callback(os.close, self._fds[controller])
                unique = {path: controller for controller, path in folders.items()}
                joins = [self._open(each, "tasks", os.O_WRONLY, undo) for each in unique.values()]
                if shared is not None:
                    joins.append(os.open(f"{shared}/tasks", os.O_WRONLY | os.O_CLOEXEC))
                    undo.callback(os.close, joins[-1])
                self.join_fds: tuple[int, ...] = tuple(joins)
                self._limit_sockets = os.access(_SOCKETS, os.F_OK, dir_fd=self._fds["memory"])
                self._usage = self._open("cpuacct", "cpuacct.usage", os.O_RDONLY, undo)
                self._oom = self._open("memory", "memory.oom_control", os.O_RDONLY, undo)
                self.oom_event_fd = self._watch_oom(undo)
            except OSError as error:
                raise CgroupError(f"cannot make the cgroups of a job: {error}") from error
            undo.pop_all()
        self._open_fds = [*self.join_fds, self._usage, self._oom, self.oom_event_fd, *self._fds.values()]

    def _open(self, controller: str, name: str, flags: int, undo: ExitStack) -> int:
        fd = os.open(name, flags | os.O_CLOEXEC, dir_fd=self._fds[controller])
        undo.callback(os.close, fd)
        return fd

    def _watch_oom(self, undo: ExitStack) -> int:
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        undo.callback(os.close, event)
        write_text(self._fds["memory"], "cgroup.event_control", f"{event} {self._oom}")
        return event

    def limit(self, *, memory_bytes: int, processes: int, cpu_cores: float, watched: bool = False) -> None:
        """Set or change the limits; without the OOM killer, page faults wait. Raises CgroupError."""
        if watched:
            self._set("memory", "memory.oom_control", 1)
        names = ["memory.limit_in_bytes"]
        if self._limit_swap:
            names.append("memory.memsw.limit_in_bytes")
            # memsw may never be below the plain limit, so lower it last and raise it first; a new group has
            # no limit.
            if memory_bytes > self._written.get(names[0], memory_bytes):
                names.reverse()
        for name in names:
            self._set("memory", name, memory_bytes)
        if self._limit_sockets:
            self._set("memory", _SOCKETS, memory_bytes // _SOCKETS_SHARE)
        self._set("pids", "pids.max", processes)
        self._set("cpu", "cpu.cfs_quota_us", int(cpu_cores * _PERIOD_US))

    def _set(self, controller: str, name: str, value: int) -> None:
        if self._written.get(name) != value:
            write_text(self._fds[controller], name, str(value))
            self._written[name] = value

    def cpu_seconds(self) -> float:
        """CPU time of all processes the group ever had."""
        return int(os.pread(self._usage, 32, 0)) / 1e9

    def memory_bytes(self) -> int:
        """Memory charged now."""
        return int(read_text(self._fds["memory"], "memory.usage_in_bytes"))

    def memory_peak_bytes(self) -> int:
        """The most memory ever charged."""
        return int(read_text(self._fds["memory"], "memory.max_usage_in_bytes"))

    def oom_kills(self) -> int:
        """How many processes the kernel's out-of-memory killer ended here."""
        return self._oom_field("oom_kill")

    def _oom_field(self, name: str) -> int:
        return field(os.pread(self._oom, 256, 0).decode(), name)

    def out_of_memory(self) -> bool:
        """Whether a process waits for memory, or system calls fail for want of it."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.oom_event_fd)
        return self._oom_field("under_oom") > 0 or self._is_limit(self.memory_bytes())

    def was_refused_memory(self) -> bool:
        """Whether system calls failed for want of memory, as far as the kernel's counters show.

        With the OOM killer off they fail with ENOMEM or EFAULT, and only page faults wait. No counter counts
        these failures (memory.failcnt stays 0 on Linux 6.18). But before a call fails, the kernel has
        reclaimed the page cache, which counts as used.
        """
        return self._is_limit(self.memory_peak_bytes())

    def _is_limit(self, used: int) -> bool:
        stat = read_text(self._fds["memory"], "memory.stat")
        cached = field(stat, "inactive_file") + field(stat, "active_file")
        return used - cached >= self._written["memory.limit_in_bytes"] - _ROUNDING_BYTES

    def pids(self) -> list[int]:
        """The processes in the group."""
        return [int(line) for line in read_text(self._fds["pids"], "cgroup.procs").split()]

    def kill(self, spared: int = 0) -> None:
        """Send SIGKILL to every process but the one spared."""
        kill_each(self.pids, spared)

    def remove(self) -> None:
        """Remove the directories and close everything. Raises CgroupError while a process is left."""
        for path in dict.fromkeys(self._folders.values()):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise CgroupError(f"{path}: {error.strerror}") from error
        self.close()

    def close(self) -> None:
        """Close the descriptors; the directories stay. Harmless a second time."""
        while self._open_fds:
            os.close(self._open_fds.pop())


@dataclass(frozen=True)
class HierarchyV1:
    """This executor's groups, `sandrun-<instance>` below its own group of each controller."""

    mounts: dict[str, Path]  # controller → where it is mounted
    tops: dict[str, Path]  # controller → this executor's top group
    limit_swap: bool
    version: int = 1

    def create(self, name: str) -> CgroupV1:
        """The groups of one job. Raises CgroupError."""
        if not all(map(os.path.isdir, self.tops.values())):
            self._make_tops()
        folders = {controller: f"{self.tops[controller]}/{name}" for controller in CONTROLLERS}
        shared = self.tops.get(HUGE_PAGES)
        return CgroupV1(folders, self.limit_swap, str(shared) if shared is not None else None)

    def _make_tops(self) -> None:
        try:
            for top in dict.fromkeys(self.tops.values()):
                top.mkdir(exist_ok=True)
            # Child groups inherit it. The limit on memory plus swap alone would let pages be swapped out.
            with suppress(FileNotFoundError):
                (self.tops["memory"] / "memory.swappiness").write_text("0")
            if HUGE_PAGES in self.tops:
                for limit in self.tops[HUGE_PAGES].glob("hugetlb.*.limit_in_bytes"):  # reserved ones, too
                    limit.write_text("0")
        except OSError as error:
            raise CgroupError(f"cannot make cgroups: {error}") from error

    def sweep(self) -> int:
        """Kill and remove every group of this executor, in whichever parent it ran; returns how many."""
        name = next(iter(self.tops.values())).name
        return sum(remove_tree(mount, name) for mount in dict.fromkeys(self.mounts.values()))
