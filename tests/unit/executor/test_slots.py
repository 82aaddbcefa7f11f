"""Slots are handed out once, come back when they are empty, and not before."""

import asyncio
from collections.abc import Iterator
from unittest.mock import Mock, patch

import pytest

from sandrun_executor import slots
from sandrun_executor.cgroups import CgroupError
from sandrun_executor.slots import NoSlotError, SlotPool


@pytest.fixture
def pool() -> Iterator[SlotPool]:
    """Two slots whose groups are made of nothing."""
    hierarchy = Mock()
    hierarchy.create.side_effect = lambda _name: Mock()
    with patch.object(slots, "Network", side_effect=lambda: Mock(**{"is_as_new.return_value": False})):
        yield SlotPool(hierarchy, first_uid=1000, count=2)


def test_no_two_have_one_user(pool: SlotPool) -> None:
    assert {pool.acquire().uid, pool.acquire().uid} == {1000, 1001}
    with pytest.raises(NoSlotError):
        pool.acquire()


def test_what_cannot_be_made_costs_no_slot(pool: SlotPool) -> None:
    with patch.object(pool._hierarchy, "create", side_effect=CgroupError("no memory")):
        for _ in range(3):
            with pytest.raises(CgroupError):
                pool.acquire()
    assert pool.acquire()


def test_a_retired_slot_comes_back_when_it_is_empty_after_all(
    pool: SlotPool, caplog: pytest.LogCaptureFixture
) -> None:
    async def use() -> None:
        pool.acquire()
        slot = pool.acquire()
        slot.cgroup.remove.side_effect = CgroupError("busy")  # type: ignore[attr-defined]
        assert not pool.release(slot)
        pool.retire(slot)
        with pytest.raises(NoSlotError):
            pool.acquire()
        slot.cgroup.remove.side_effect = None  # type: ignore[attr-defined]
        again = pool.acquire()
        assert again.number == slot.number
        assert again.cgroup is not slot.cgroup
        with pytest.raises(NoSlotError):
            pool.acquire()

    asyncio.run(use())
    assert "is retired: something in it does not die" in caplog.text
