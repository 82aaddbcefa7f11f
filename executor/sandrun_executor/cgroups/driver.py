"""What a job's cgroup offers, whatever the version, and what both drivers share."""

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
# For one tree. A group without processes stays busy until the last one, reaped or not, is off its processor,
# and a big process takes a while to give its memory back.
_SWEEP_SECONDS = 10.0
_SWEEP_PAUSE_MS = 5
_KILL_ROUNDS = 50
_PIDFDS = 64  # open at a time
_log = logging.getLogger("sandrun.executor")


class CgroupError(Exception):
    """A cgroup cannot be made, limited or removed; the text says what and how to mend it."""


class Cgroup(Protocol):
    """The resources of one sandbox."""

    join_fds: tuple[int, ...]  # v1: `tasks` files; a single-threaded process joins by writing "0" to each
    # Readable when memory may have run out, which out_of_memory then tells; v2: -1 while not watched.
    oom_event_fd: int

    @property
    def into_fd(self) -> int | None:
        """v2: the directory for clone3(CLONE_INTO_CGROUP)."""

    def limit(self, *, memory_bytes: int, processes: int, cpu_cores: float, watched: bool = False) -> None:
        """Set or change the limits. Raises CgroupError.

        watched: the caller watches oom_event_fd and ends what runs out of memory; the kernel's killer, which
        writes command names into the kernel's log, is kept out as far as this version of cgroups can.
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
        """Whether memory has run out; oom_event_fd is then not readable before it may have again."""

    def was_refused_memory(self) -> bool:
        """Whether system calls failed for want of memory before the last process ended."""

    def pids(self) -> list[int]:
        """The processes in the group."""

    def kill(self, spared: int = 0) -> None:
        """SIGKILL to everything in the group, but not to the process whose id is spared."""

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
        """A group for one sandbox. Raises CgroupError; nothing is left then."""

    def sweep(self) -> int:
        """End and remove every group of this executor, or what a dead predecessor left; how many groups."""


def has_swap(proc_swaps: Path = Path("/proc/swaps")) -> bool:
    """Whether the machine swaps at all (proc(5))."""
    return len(proc_swaps.read_text().splitlines()) > 1


def read_text(dir_fd: int, name: str) -> str:
    """A small file of a cgroup directory. Raises CgroupError."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            return os.read(fd, 4096).decode()
        finally:
            os.close(fd)
    except OSError as error:
        raise CgroupError(f"cannot read {name}: {error.strerror}") from error


def write_text(dir_fd: int, name: str, value: str) -> None:
    """Write a value the kernel must take whole. Raises CgroupError."""
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise CgroupError(f"cannot write {value} to {name}: {error.strerror}") from error


def remove_tree(mount: Path, name: str) -> int:
    """End every process in the groups called name below mount and remove them; how many were removed."""
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
    """SIGKILL by pidfd to every process of a group but one, until none is left or the rounds are used up."""
    for _ in range(_KILL_ROUNDS):
        if not kill_once(pids, spared):
            return
        os.sched_yield()  # let them die


def kill_once(pids: Callable[[], list[int]], spared: int) -> int:
    """SIGKILL by pidfd to every process that a group has now but one; how many that were."""
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
    """SIGKILL to the pids of a group; their pidfds, for the caller to close.

    A number may be another process' by now: only what `again`, called with the pidfds open, still names
    is ended.
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
    """SIGKILL whatever is in the group and give it a moment to end."""
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
