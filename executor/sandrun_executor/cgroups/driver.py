"""The interface of a job's cgroup in either version, and the code that both drivers share."""

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

_SWEEP_DEPTH = 8
# For one tree. A group stays busy until its last process, even a reaped one, has left its processor, and a
# large process takes a while to free its memory.
_SWEEP_SECONDS = 10.0
_SWEEP_PAUSE_MS = 5
_KILL_ROUNDS = 50
_PIDFDS = 64  # open at a time
_log = logging.getLogger("sandrun.executor")


class CgroupError(Exception):
    """A cgroup cannot be made, limited or removed; the text says which and what to do."""


class Cgroup(Protocol):
    """The resources of one sandbox."""

    join_fds: tuple[int, ...]  # v1: `tasks` files; a single-threaded process joins by writing "0" to each
    # Readable when memory may have run out: ask out_of_memory. v2: -1 while not watched.
    oom_event_fd: int

    @property
    def into_fd(self) -> int | None:
        """v2: the directory for clone3(CLONE_INTO_CGROUP)."""

    def limit(self, *, memory_bytes: int, processes: int, cpu_cores: float, watched: bool = False) -> None:
        """Set or change the limits. Raises CgroupError.

        watched: the caller watches oom_event_fd and kills what runs out of memory. The kernel's OOM killer,
        which logs command names, is then avoided as far as this version of cgroups allows.
        """

    def cpu_seconds(self) -> float:
        """CPU time of all processes the group ever had."""

    def memory_bytes(self) -> int:
        """Memory charged now."""

    def memory_peak_bytes(self) -> int:
        """The most memory ever charged."""

    def oom_kills(self) -> int:
        """How many processes the kernel's out-of-memory killer ended here."""

    def out_of_memory(self) -> bool:
        """Whether memory has run out; resets oom_event_fd until it may have run out again."""

    def was_refused_memory(self) -> bool:
        """Whether system calls failed for want of memory before the last process ended."""

    def pids(self) -> list[int]:
        """The processes in the group."""

    def kill(self, spared: int = 0) -> None:
        """Send SIGKILL to every process in the group except the one whose id is `spared`."""

    def remove(self) -> None:
        """Remove the group and close. Raises CgroupError while a process is left."""

    def close(self) -> None:
        """Close the descriptors; the group itself stays."""


class Hierarchy(Protocol):
    """Where an executor makes cgroups."""

    @property
    def version(self) -> int:
        """1 or 2."""

    def create(self, name: str) -> Cgroup:
        """Create a group for one sandbox. Raises CgroupError and leaves nothing behind."""

    def sweep(self) -> int:
        """Kill and remove every group of this executor or of a dead predecessor; returns how many."""


def has_swap(proc_swaps: Path = Path("/proc/swaps")) -> bool:
    """Whether the machine swaps at all (proc(5))."""
    return len(proc_swaps.read_text().splitlines()) > 1


def read_text(dir_fd: int, name: str) -> str:
    """Read a small file of a cgroup directory. Raises CgroupError."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            return os.read(fd, 4096).decode()
        finally:
            os.close(fd)
    except OSError as error:
        raise CgroupError(f"cannot read {name}: {error.strerror}") from error


def write_text(dir_fd: int, name: str, value: str) -> None:
    """Write a value in one write(2), as the kernel requires. Raises CgroupError."""
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise CgroupError(f"cannot write {value} to {name}: {error.strerror}") from error


def remove_tree(mount: Path, name: str) -> int:
    """Kill every process in the groups called name below mount and remove these; returns how many."""
    removed = 0
    for folder, names, _ in os.walk(mount):
        if len(Path(folder).relative_to(mount).parts) >= _SWEEP_DEPTH:
            names.clear()
        if name in names:
            names.remove(name)
            removed += _remove_group(Path(folder) / name)
    return removed


def _remove_group(top: Path) -> int:
    left = [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
    for group in left:
        with suppress(OSError), (group / "pids.max").open("r+") as file:
            file.write("0")  # else a fork bomb could outrun us
    removed = 0
    deadline = time.monotonic() + _SWEEP_SECONDS
    while left and time.monotonic() < deadline:
        busy = []
        for group in left:
            _end_all(group)
            try:
                group.rmdir()
                removed += 1
            except FileNotFoundError:
                pass
            except OSError:
                busy.append(group)
        left = busy
        if left:
            select.poll().poll(_SWEEP_PAUSE_MS)
    if left:
        _log.error("something in %s does not die: %d cgroups stay", top, len(left))
    return removed


def kill_each(pids: Callable[[], list[int]], spared: int) -> None:
    """Kill every process of a group but one by pidfd, until the group is empty or the rounds are used up."""
    for _ in range(_KILL_ROUNDS):
        if not kill_once(pids, spared):
            return
        os.sched_yield()  # let them die


def kill_once(pids: Callable[[], list[int]], spared: int) -> int:
    """Send SIGKILL by pidfd to every process that a group has now, but one; returns their number."""
    living = [pid for pid in pids() if pid != spared]
    for start in range(0, len(living), _PIDFDS):
        for fd in send_kill(living[start : start + _PIDFDS], pids):
            os.close(fd)
    return len(living)


def field(text: str, name: str) -> int:
    """The number in the line that begins with this name. Raises CgroupError."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    raise CgroupError(f"no field {name}")


def send_kill(pids: list[int], again: Callable[[], list[int]]) -> list[int]:
    """Send SIGKILL to the pids of a group; returns their pidfds, which the caller closes.

    A pid may have been reused by now. Therefore only a process that `again`, called with the pidfds open,
    still lists is killed.
    """
    with ExitStack() as undo:
        opened = {}
        for pid in pids:
            with suppress(ProcessLookupError):
                opened[pid] = os.pidfd_open(pid)
                undo.callback(os.close, opened[pid])
        for pid in opened.keys() & set(again()):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(opened[pid], signal.SIGKILL)
        undo.pop_all()
    return list(opened.values())


def _end_all(group: Path) -> None:
    """Kill whatever is in the group and give it a moment to end."""
    dying = send_kill(_living(group), lambda: _living(group))
    poll = select.poll()
    for fd in dying:
        poll.register(fd, select.POLLIN)
    if dying:
        poll.poll(_SWEEP_PAUSE_MS)
    for fd in dying:
        os.close(fd)


def _living(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split() if line != "0"]
    except OSError:
        return []
