"""Slots: the user id, network namespace and cgroup of a sandbox."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sandrun_executor.cgroups.probe import Cgroup, CgroupError, Hierarchy
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.networks import Network, Networks

RECLAIM_SECONDS = 5.0  # after which a retired slot is looked at again

_log = logging.getLogger("sandrun.executor")


class NoSlotError(Exception):
    """Every slot is in use."""


class SlotsRetiredError(Exception):
    """Every slot is retired, so the end of a job frees none."""


@dataclass(frozen=True)
class Slot:
    """One sandbox's share of the machine; its uid is unique while the slot is in use."""

    number: int
    uid: int
    network: Network
    cgroup: Cgroup


class Slots:
    """Acquires and releases slots; one that cannot be proven empty is retired until it can."""

    def __init__(self, hierarchy: Hierarchy, first_uid: int, count: int) -> None:
        self._hierarchy = hierarchy
        self._first_uid = first_uid
        self._count = count
        self._free = list(range(count - 1, -1, -1))
        self._retired: list[tuple[Slot, Callable[[], None]]] = []
        self._reclaiming: asyncio.TimerHandle | None = None
        self.reclaimed = 0  # total of retired slots that became empty after all
        self.on_freed: Callable[[], None] = _nothing  # after `bury` destroyed something
        self.on_reclaimed: Callable[[], None] = _nothing
        self._endings: set[asyncio.Task[None]] = set()
        self._start = time.time_ns()
        self._networks = Networks()
        self._made = 0

    def acquire(self) -> Slot:
        """Acquire a slot with an unused network namespace and a new cgroup.

        Raises NoSlotError when none is free, SlotsRetiredError, OSError, CgroupError.
        """
        if not self._free:
            self._reclaim()
        if not self._free:
            raise SlotsRetiredError if self.retired == self._count else NoSlotError
        number = self._free.pop()
        with ExitStack() as undo:
            undo.callback(self._free.append, number)
            network = self._networks.acquire()
            undo.callback(network.close)
            self._made += 1
            cgroup = self.create_cgroup(f"job-{number}-{self._made}")
            undo.pop_all()
        return Slot(number, self._first_uid + number, network, cgroup)

    def create_cgroup(self, name: str) -> Cgroup:
        """Create a cgroup under a fresh name: a predecessor's may still exist. Raises CgroupError."""
        return self._hierarchy.create(f"{name}-{self._start}")

    def release(self, slot: Slot) -> bool:
        """Release a slot whose last process died; False if its cgroup is still populated."""
        try:
            slot.cgroup.remove()
        except CgroupError:
            return False
        self._networks.release(slot.network)
        self._free.append(slot.number)
        return True

    async def bury(self, ending: Coroutine[Any, Any, None], seconds: float) -> None:
        """Destroy a sandbox that could not be prepared; after some seconds this goes on in the background."""
        task = asyncio.get_running_loop().create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._buried)
        await asyncio.wait({task}, timeout=seconds)

    def _buried(self, task: asyncio.Task[None]) -> None:
        self._endings.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a sandbox could not be destroyed: %s", type(task.exception()).__name__)
        self.on_freed()

    async def settled(self) -> None:
        """Wait for what is destroyed in the background; each takes a bounded time."""
        while self._endings:
            await asyncio.wait(self._endings)
            await asyncio.sleep(0)  # run their done callbacks

    @property
    def retired(self) -> int:
        """How many slots are out of use because a process in them does not die."""
        return len(self._retired)

    def retire(self, slot: Slot, then: Callable[[], None]) -> None:
        """Retire a slot in which a killed process does not die; call `then` once it is empty."""
        pids = _pids(slot)
        states = "; ".join(f"process {pid}: {faults.state_of(pid)}" for pid in pids) or "no process is listed"
        _log.error("slot %d is retired: a process in it does not die (%s)", slot.number, states)
        self._retired.append((slot, then))
        if self._reclaiming is None:
            self._look_again()

    def _look_again(self) -> None:
        self._reclaiming = asyncio.get_running_loop().call_later(
            RECLAIM_SECONDS, self._reclaim_and_look_again
        )

    def _reclaim_and_look_again(self) -> None:
        self._reclaiming = None
        self._reclaim()
        if self._retired:
            self._look_again()

    def _reclaim(self) -> None:
        retired, self._retired = self._retired, []
        for slot, then in retired:
            if self.release(slot):
                _log.warning("slot %d is used again: it is empty after all", slot.number)
                self.reclaimed += 1
                then()
            else:
                self._retired.append((slot, then))
        if len(self._retired) < len(retired):
            self.on_reclaimed()

    def close(self) -> None:
        """Close the networks that wait for a job, and stop watching retired slots."""
        if self._reclaiming is not None:
            self._reclaiming.cancel()
            self._reclaiming = None
        self._networks.close()


def _pids(slot: Slot) -> list[int]:
    try:
        return slot.cgroup.pids()
    except CgroupError:
        return []


def _nothing() -> None:
    return
