"""What a sandbox holds of the machine: a user id, a network namespace, a cgroup."""

import asyncio
import logging
from contextlib import ExitStack
from dataclasses import dataclass

from sandrun_executor.cgroups import Cgroup, CgroupError, Hierarchy
from sandrun_executor.networks import Network

KEEP_SECONDS = 0.05  # for which an unused network waits for the next job of a burst

_log = logging.getLogger("sandrun.executor")


class NoSlotError(Exception):
    """Every slot is in use."""


@dataclass(frozen=True)
class Slot:
    """One sandbox's share: uid is nobody else's while the slot lives."""

    number: int
    uid: int
    network: Network
    cgroup: Cgroup


class SlotPool:
    """Hands out slots; one that cannot be proven empty is not handed out before it can."""

    def __init__(self, hierarchy: Hierarchy, first_uid: int, count: int) -> None:
        self._hierarchy = hierarchy
        self._first_uid = first_uid
        self._free = list(range(count - 1, -1, -1))
        self._retired: list[Slot] = []
        self._networks: list[Network] = []  # as new, each
        self._kept_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._made = 0

    def acquire(self) -> Slot:
        """A slot with a network namespace that nobody has used and a new cgroup.

        Raises NoSlotError when none is free, OSError, CgroupError.
        """
        if not self._free:
            self._reclaim()
        if not self._free:
            raise NoSlotError
        number = self._free.pop()
        with ExitStack() as undo:
            undo.callback(self._free.append, number)
            network = self._networks.pop() if self._networks else Network()
            undo.callback(network.close)
            self._made += 1
            cgroup = self._hierarchy.create(f"job-{number}-{self._made}")
            undo.pop_all()
        return Slot(number, self._first_uid + number, network, cgroup)

    def release(self, slot: Slot) -> bool:
        """Give a slot back after its last process died; False when its cgroup is still populated."""
        try:
            slot.cgroup.remove()
        except CgroupError:
            return False
        # Counters and sockets in TIME_WAIT would tell of the job before.
        if slot.network.is_as_new():
            self._keep(slot.network)
        else:
            slot.network.close()
        self._free.append(slot.number)
        return True

    def retire(self, slot: Slot) -> None:
        """Do not use this slot while something is in it, though it was killed."""
        _log.error("slot %d is retired: something in it does not die", slot.number)
        self._retired.append(slot)

    def _reclaim(self) -> None:
        self._retired = [slot for slot in self._retired if not self.release(slot)]

    def _keep(self, network: Network) -> None:
        loop = asyncio.get_running_loop()
        self._networks.append(network)
        self._kept_at = loop.time()
        if self._timer is None:
            self._timer = loop.call_at(self._kept_at + KEEP_SECONDS, self._drop_idle)

    def _drop_idle(self) -> None:
        loop = asyncio.get_running_loop()
        drop_at = self._kept_at + KEEP_SECONDS
        if loop.time() < drop_at:
            self._timer = loop.call_at(drop_at, self._drop_idle)
        else:
            self.close()

    def close(self) -> None:
        """Let the networks go that wait for a job."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._networks:
            self._networks.pop().close()
