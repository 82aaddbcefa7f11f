"""What a sandbox holds of the machine: a user id, a network namespace, a cgroup."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sandrun_executor import linux_unsafe as linux
from sandrun_executor.cgroups import Cgroup, CgroupError, Hierarchy

_log = logging.getLogger("sandrun.executor")


class NoSlotError(Exception):
    """Every slot is in use."""


@dataclass(frozen=True)
class Slot:
    """One sandbox's share: uid is nobody else's while the slot lives."""

    number: int
    uid: int
    network_fd: int
    cgroup: Cgroup


class SlotPool:
    """Hands out slots; a slot that cannot be proven empty is never handed out again."""

    def __init__(self, hierarchy: Hierarchy, first_uid: int, count: int) -> None:
        self._hierarchy = hierarchy
        self._first_uid = first_uid
        self._free = list(range(count - 1, -1, -1))
        self._made = 0
        self.lost = 0  # slots retired because something in them would not die

    def acquire(self) -> Slot:
        """A slot with a fresh network namespace and cgroup.

        Raises NoSlotError when none is free, OSError, CgroupError.
        """
        if not self._free:
            raise NoSlotError
        number = self._free.pop()
        with ExitStack() as undo:
            undo.callback(self._free.append, number)
            # A namespace is never used twice: counters and sockets in TIME_WAIT would tell of the job before.
            network_fd = new_network()
            undo.callback(os.close, network_fd)
            self._made += 1
            cgroup = self._hierarchy.create(f"job-{number}-{self._made}")
            undo.pop_all()
        return Slot(number, self._first_uid + number, network_fd, cgroup)

    def release(self, slot: Slot) -> bool:
        """Give a slot back after its last process died; False when its cgroup is still populated."""
        try:
            slot.cgroup.remove()
        except CgroupError:
            return False
        os.close(slot.network_fd)
        self._free.append(slot.number)
        return True

    def retire(self, slot: Slot) -> None:
        """Never use this slot again."""
        _log.error("slot %d is retired: something in it does not die", slot.number)
        slot.cgroup.close()
        os.close(slot.network_fd)
        self.lost += 1


def new_network() -> int:
    """A descriptor of a new network namespace with `lo` up and nothing else (network_namespaces(7))."""
    with _thread_namespace():
        linux.unshare(linux.CLONE_NEWNET)
        linux.loopback_up()
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def _thread_namespace() -> Iterator[None]:
    """Come back to this thread's network namespace at the end."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        linux.setns(home, linux.CLONE_NEWNET)
        os.close(home)
