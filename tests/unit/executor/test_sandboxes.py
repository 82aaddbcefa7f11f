"""Sandboxes as the executor holds them."""

from typing import cast

import pytest

from sandrun_executor.sandboxes import Sandbox
from sandrun_executor.slots import Slot, SlotPool
from sandrun_executor.zygotes import Zygote
from sandrun_shared.jobs import Limits

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FakeZygote:
    alive = True


class FakeSlot:
    cgroup = None


def sandbox(zygote: FakeZygote) -> Sandbox:
    return Sandbox(cast(Zygote, zygote), cast(SlotPool, None), cast(Slot, FakeSlot()), Limits())


async def test_a_parked_sandbox_waits_until_something_in_it_ends() -> None:
    zygote = FakeZygote()
    waiting, without_job, dead = sandbox(zygote), sandbox(zygote), sandbox(zygote)
    without_job._init_says(["exited", "9", "0"], None)  # killed, a started interpreter for example
    dead._died()
    dead._ready.exception()  # nobody waits for it here
    babbles = sandbox(zygote)
    babbles._init_says(["resized"], None)  # which nobody asked for
    babbles._ready.exception()
    assert [one.usable for one in (waiting, without_job, dead, babbles)] == [True, False, False, False]
    zygote.alive = False
    assert not waiting.usable
    for one in (waiting, without_job, dead, babbles):
        one._init.close()
        one._job.close()
