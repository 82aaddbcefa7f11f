"""A slot is acquired once, and released only when it is empty."""

import asyncio
from collections.abc import Iterator
from unittest.mock import Mock, patch

import pytest

from sandrun_executor.cgroups.probe import CgroupError
from sandrun_executor.sandboxes import networks
from sandrun_executor.sandboxes import slots as module
from sandrun_executor.sandboxes.slots import NoSlotError, Slots, SlotsRetiredError


@pytest.fixture
def slots() -> Iterator[Slots]:
    """Two slots with fake cgroups."""
    hierarchy = Mock()
    hierarchy.create.side_effect = lambda _name: Mock(**{"pids.return_value": [1]})
    with patch.object(networks, "Network", side_effect=lambda: Mock(**{"is_as_new.return_value": False})):
        yield Slots(hierarchy, first_uid=1000, count=2)


def test_no_two_have_one_user(slots: Slots) -> None:
    assert {slots.acquire().uid, slots.acquire().uid} == {1000, 1001}
    with pytest.raises(NoSlotError):
        slots.acquire()


def test_what_cannot_be_made_costs_no_slot(slots: Slots) -> None:
    with patch.object(slots._hierarchy, "create", side_effect=CgroupError("no memory")):
        for _ in range(3):
            with pytest.raises(CgroupError):
                slots.acquire()
    assert slots.acquire()


def test_a_retired_slot_comes_back_when_it_is_empty_after_all(
    slots: Slots, caplog: pytest.LogCaptureFixture
) -> None:
    async def use() -> None:
        slots.acquire()
        slot = slots.acquire()
        slot.cgroup.remove.side_effect = CgroupError("busy")  # type: ignore[attr-defined]
        assert not slots.release(slot)
        emptied: list[int] = []
        slots.retire(slot, lambda: emptied.append(slot.number))
        assert (slots.retired, slots.reclaimed) == (1, 0)
        with pytest.raises(NoSlotError):
            slots.acquire()
        slot.cgroup.remove.side_effect = None  # type: ignore[attr-defined]
        again = slots.acquire()
        assert again.number == slot.number
        assert again.cgroup is not slot.cgroup
        assert emptied == [slot.number]
        assert (slots.retired, slots.reclaimed) == (0, 1)
        with pytest.raises(NoSlotError):
            slots.acquire()

    asyncio.run(use())
    assert "is retired: a process in it does not die" in caplog.text


def test_a_retired_slot_is_looked_at_without_anybody_asking(
    slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECLAIM_SECONDS", 0.001)

    async def use() -> None:
        slot = slots.acquire()
        slot.cgroup.remove.side_effect = [CgroupError("busy")] * 3 + [None]  # type: ignore[attr-defined]
        told = asyncio.Event()
        slots.on_reclaimed = told.set
        slots.retire(slot, lambda: None)
        async with asyncio.timeout(20):
            await told.wait()
        assert (slots.retired, slots.reclaimed) == (0, 1)
        assert slot.cgroup.remove.call_count == 4  # type: ignore[attr-defined]

    asyncio.run(use())


def test_when_every_slot_is_retired_nobody_is_to_wait_for_one(slots: Slots) -> None:
    async def use() -> None:
        for _ in range(2):
            slot = slots.acquire()
            slot.cgroup.remove.side_effect = CgroupError("busy")  # type: ignore[attr-defined]
            slots.retire(slot, lambda: None)
        with pytest.raises(SlotsRetiredError):
            slots.acquire()
        slots.close()

    asyncio.run(use())


def test_a_predecessors_cgroup_that_stays_is_in_nobodys_way() -> None:
    hierarchy = Mock()
    names: set[str] = set()

    def create(name: str) -> Mock:
        assert name not in names
        names.add(name)
        return Mock()

    hierarchy.create.side_effect = create
    with patch.object(networks, "Network", side_effect=Mock):
        for _ in range(2):  # starts of the daemon
            slots = Slots(hierarchy, first_uid=1000, count=2)
            slots.acquire()
            slots.create_cgroup("zygote")
    assert len(names) == 4


def test_what_takes_long_to_end_does_so_alone(slots: Slots) -> None:
    async def use() -> None:
        dead, freed = asyncio.Event(), asyncio.Event()
        slots.on_freed = freed.set

        async def end() -> None:
            await dead.wait()

        async with asyncio.timeout(20):
            await slots.bury(end(), 0)
            settled = asyncio.create_task(slots.settled())
            await asyncio.sleep(0)
            assert not freed.is_set()
            dead.set()
            await settled
            assert freed.is_set()

    asyncio.run(use())
