"""Timers are kept only while they are pending, however many there were."""

import asyncio

import pytest

from sandrun_executor.sandboxes.timers import Timers

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_timer_that_ran_is_forgotten() -> None:
    timers, done, ran = Timers(), asyncio.Event(), []

    def again() -> None:
        ran.append(len(timers))
        if len(ran) == 1000:
            done.set()
        else:
            timers.after(0, again)

    timers.after(0, again)
    async with asyncio.timeout(20):
        await done.wait()
    assert ran == [0] * 1000
    assert len(timers) == 0


async def test_cancelled_timers_do_not_run() -> None:
    timers, ran = Timers(), []
    timers.after(0, lambda: ran.append(1))
    timers.cancel()
    over = asyncio.Event()
    timers.after(0, over.set)
    await over.wait()
    assert ran == []
