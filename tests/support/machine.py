"""The traces of an executor on this machine, for comparison before and after."""

import contextlib
import os
import re
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

from sandrun_executor.daemon import instance_name
from support.executor import PATIENCE, SOCKETS, UIDS, ExecutorProcess

_SHMEM_SLACK = 24 << 20  # bytes of shared memory that other programs of the machine may come to use
_SETTLE_SECONDS = 15.0 * PATIENCE


class Instance(Protocol):
    """Identifies the traces of one executor."""

    first_uid: int
    socket: Path


def pause(seconds: float = 0.01) -> None:
    """Pause a bounded polling loop for a moment."""
    select.select([], [], [], seconds)


def eventually(condition: Callable[[], bool], seconds: float = _SETTLE_SECONDS) -> bool:
    """Whether the condition became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause()
    return True


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    uid: int


def processes() -> dict[int, Process]:
    """Every process of the machine, zombies too."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                uid = int(re.search(r"^Uid:\t(\d+)", Path(f"/proc/{name}/status").read_text(), re.M)[1])
            except (OSError, TypeError, IndexError):
                continue
            found[int(name)] = Process(int(name), int(stat[1]), uid)
    return found


def descendants(root: int) -> set[int]:
    """List the descendants of root."""
    table = processes()
    found: set[int] = set()
    fresh = {root}
    while fresh:
        fresh = {process.pid for process in table.values() if process.parent in fresh} - found
        found |= fresh
    return found


def of_jobs(executor: Instance) -> set[int]:
    """Processes that run under a user id of one of the executor's slots, whatever their parent is now."""
    uids = range(executor.first_uid, executor.first_uid + UIDS)
    return {process.pid for process in processes().values() if process.uid in uids}


def cgroups(executor: Instance) -> set[str]:
    """Every cgroup of one executor, in any hierarchy."""
    instance = instance_name(executor.socket)
    return {path for path in _cgroup_folders("/sys/fs/cgroup") if instance in path}


def cgroups_of_all() -> set[str]:
    """Every cgroup of any executor that these tests started."""
    instances = [instance_name(socket) for socket in SOCKETS]
    if not instances:
        return set()
    return {path for path in _cgroup_folders("/sys/fs/cgroup") if any(name in path for name in instances)}


def _cgroup_folders(top: str) -> Iterator[str]:
    for folder, names, _ in os.walk(top):
        yield from (f"{folder}/{name}" for name in names)


def network_namespaces(pids: set[int]) -> set[str]:
    """Select the namespaces that the processes are in or hold a descriptor of."""
    found = set()
    for pid in pids:
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        found.update(link for link in links if link.startswith("net:["))
    return found


def mounts() -> list[str]:
    """Mounts of the machine's own namespace, without their ids."""
    lines = Path("/proc/1/mountinfo").read_text().splitlines()
    return sorted(line.split(" ", 3)[3] for line in lines)


def shared_memory() -> int:
    """Return the total size of all tmpfs and shared mappings."""
    return int(re.search(r"^Shmem:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)[1]) << 10


def connections(socket: Path) -> int:
    """Count the connections that a server has not closed, or not yet accepted (proc_pid_net(5))."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(f" {socket}") for line in lines) - 1  # one listens


def descriptors(pid: int) -> tuple[str, ...]:
    """List the targets of a process's descriptors, sorted, without numbers; and whether a thread has ended."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed while we look
            name = os.readlink(f"/proc/{pid}/fd/{fd}").removesuffix(" (deleted)")
            found.append(re.sub(r"\d+", "N", name))
    return tuple(sorted(found))


@dataclass(frozen=True)
class State:
    """Counts that must be the same before and after a test."""

    processes: int
    job_processes: int
    cgroups: int
    network_namespaces: int
    descriptors: tuple[str, ...]
    mounts: tuple[str, ...]

    @classmethod
    def of(cls, executor: ExecutorProcess) -> "State":
        """The state now."""
        pids = descendants(executor.pid)
        return cls(
            len(pids),
            len(of_jobs(executor)),
            len(cgroups(executor)),
            len(network_namespaces({executor.pid, *pids})),
            descriptors(executor.pid),
            tuple(mounts()),
        )


def at_rest(executor: ExecutorProcess) -> bool:
    """Whether exactly the parked sandboxes are there: the zygote, two processes in each, and a network each.

    Also checks that the executor has been told of each, so that it has its pidfd, and has closed its clients'
    files.
    """
    pids = descendants(executor.pid)
    networks = network_namespaces({executor.pid, *pids})
    told = sum("pidfd" in name for name in descriptors(executor.pid))
    parked = executor.parked
    counts = len(pids), len(networks), told, connections(executor.socket)
    return counts == (1 + 2 * parked, 1 + parked, parked, 0)


def settled(executor: ExecutorProcess) -> State:
    """Wait until every sandbox is parked; returns the state. Raises AssertionError."""
    state = State.of(executor)

    def same_twice() -> bool:
        nonlocal state
        before, state = state, State.of(executor)
        return at_rest(executor) and before == state

    assert eventually(same_twice), f"the executor does not come to rest: {state}"
    return state


def assert_unchanged(executor: ExecutorProcess, before: State, shared_before: int) -> None:
    """Compare with the state before: nothing more, and nothing less except descriptors. Raises AssertionError."""
    eventually(lambda: at_rest(executor) and not _differences(before, State.of(executor)))
    assert not (different := _differences(before, State.of(executor))), "\n".join(different)
    assert eventually(lambda: shared_memory() <= shared_before + _SHMEM_SLACK), "tmpfs was not given back"


def _differences(before: State, after: State) -> list[str]:
    """List the counts that differ, except fewer descriptors, which mean that the first look came too early."""
    found = []
    for name, then, now in ((f.name, getattr(before, f.name), getattr(after, f.name)) for f in fields(State)):
        if isinstance(now, int):
            if now != then:
                found.append(f"{name}: {then}, now {now}")
            continue
        more, fewer = Counter(now) - Counter(then), Counter(then) - Counter(now)
        if more or (fewer and name != "descriptors"):
            found.append(f"{name}: more {dict(more)}, fewer {dict(fewer)}")
    return found
