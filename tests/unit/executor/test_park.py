"""Sandboxes are prepared ahead of demand, used once, and not prepared while a burst needs the processors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from sandrun_executor.environments import park
from sandrun_executor.environments.circuit import FAILURES, Unavailable
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.sandbox import Sandbox, SandboxError
from sandrun_executor.sandboxes.slots import NoSlotError

pytestmark = pytest.mark.anyio
SIZE = 5
FAILURE = SandboxError(faults.of_step("proc", 1))
FULL = SandboxError(faults.of_step("seccomp", 524))
STUCK = SandboxError(faults.of_stuck([], 5.0), is_stuck=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(eq=False)
class FakeSandbox:
    usable: bool = True


@dataclass
class Maker:
    """A fake maker that prepares at once while there are slots; it counts, and signals a failed attempt."""

    slots: int = 100
    error: Exception | None = None
    asked: int = 0
    hangs: asyncio.Event | None = None  # until it is set
    made: list[FakeSandbox] = field(default_factory=list)
    discarded: list[FakeSandbox] = field(default_factory=list)
    refused: asyncio.Event = field(default_factory=asyncio.Event)

    async def prepare(self) -> Sandbox:
        self.asked += 1
        await asyncio.sleep(0)
        if self.hangs is not None:
            await self.hangs.wait()
        if self.error is not None:
            raise self.error
        if self.slots == 0:
            self.refused.set()
            raise NoSlotError
        self.slots -= 1
        self.made.append(FakeSandbox())
        return cast(Sandbox, self.made[-1])

    def discard(self, sandbox: Sandbox) -> None:
        self.discarded.append(cast(FakeSandbox, sandbox))


@asynccontextmanager
async def started(maker: Maker, size: int = SIZE) -> AsyncIterator[park.Park]:
    running = park.Park(size, maker.prepare, maker.discard)
    await running.start()
    try:
        yield running
    finally:
        await running.close()


async def turns(count: int = 50) -> None:
    """Run the event loop until every task waits."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_fills_and_fills_again_and_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "QUIET_SECONDS", 0)
    maker = Maker()
    async with started(maker) as running:
        await turns()
        assert len(maker.made) == SIZE
        first = await running.acquire()
        assert first is maker.made[0]
        await turns()
        assert len(maker.made) == SIZE + 1
    assert maker.discarded == maker.made[1:]


async def test_what_cannot_be_used_any_more_is_discarded() -> None:
    maker = Maker()
    async with started(maker) as running:
        await turns()
        maker.made[0].usable = maker.made[1].usable = False
        assert await running.acquire() is maker.made[2]
        assert maker.discarded == maker.made[:2]


async def test_in_a_burst_only_the_low_water_mark_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "QUIET_SECONDS", 3600)
    maker = Maker()
    async with started(maker) as running:
        await turns()
        for taken in range(1, SIZE + 4):
            await running.acquire()
            await turns()
            assert len(maker.made) == max(SIZE, taken + park.LOW_WATER)
        running._quiet_at = 0.0
        running.slot_freed()
        await turns()
        assert len(maker.made) == SIZE + 3 + SIZE


async def test_the_quiet_after_a_burst_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "QUIET_SECONDS", 0.001)
    maker = Maker()
    full = asyncio.Event()
    prepare = maker.prepare

    async def told() -> Sandbox:
        sandbox = await prepare()
        if len(maker.made) == SIZE + 1:
            full.set()
        return sandbox

    maker.prepare = told  # type: ignore[method-assign]
    async with started(maker) as running:
        await turns()
        await running.acquire()
        async with asyncio.timeout(20):
            await full.wait()


async def test_without_a_slot_it_waits_for_one() -> None:
    maker = Maker(slots=1)
    async with started(maker) as running:
        await running.acquire()
        waiting = asyncio.create_task(running.acquire())
        async with asyncio.timeout(20):
            await maker.refused.wait()
        await turns()
        assert not waiting.done()
        maker.slots = 1
        running.slot_freed()
        async with asyncio.timeout(20):
            assert await waiting is maker.made[-1]


async def test_no_slot_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "ACQUIRE_SECONDS", 0)
    async with started(Maker(slots=1)) as running:
        await turns()
        running._waiting.clear()
        with pytest.raises(TimeoutError):
            await running.acquire()


async def test_a_first_sandbox_that_fails_is_told() -> None:
    with pytest.raises(SandboxError):
        async with started(Maker(error=FAILURE)):
            pass


async def test_a_failure_later_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "RETRY_SECONDS", 0)
    monkeypatch.setattr(park, "QUIET_SECONDS", 0)
    maker = Maker()
    async with started(maker, size=2) as running:
        maker.error = FAILURE
        await turns()
        running._waiting.clear()
        with pytest.raises(SandboxError):
            await running.acquire()
        maker.error = None
        await turns()
        assert len(running._waiting) == 2


async def failing(maker: Maker, running: park.Park, error: Exception) -> None:
    """Release every sandbox and make each attempt fail from now on."""
    await turns()
    maker.error = error
    running._waiting.clear()


async def test_a_failure_that_passes_is_not_told() -> None:
    maker = Maker()
    async with started(maker) as running:
        await failing(maker, running, FULL)
        taking = asyncio.create_task(running.acquire())
        await asyncio.sleep(0)
        maker.error = None
        async with asyncio.timeout(20):
            assert await taking is maker.made[-1]


async def test_failures_in_a_row_are_told_at_once_and_nobody_else_tries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    maker = Maker()
    async with started(maker) as running:
        await failing(maker, running, FULL)
        with pytest.raises(Unavailable) as caught:
            await running.acquire()
        assert caught.value.fault == FULL.fault
        await turns()  # the one who goes on trying does so once, and then pauses
        asked = maker.asked
        for _ in range(FAILURES):
            with pytest.raises(Unavailable):
                await running.acquire()
        assert maker.asked == asked
    assert caplog.text.count("jobs are refused: step seccomp failed with errno 524") == 1


async def test_those_who_wait_for_a_slot_hear_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker(slots=1)
    async with started(maker) as running:
        await running.acquire()
        waiting = [asyncio.create_task(running.acquire()) for _ in range(3)]
        async with asyncio.timeout(20):
            await maker.refused.wait()
        await turns()
        maker.error = STUCK
        running.slot_freed()
        async with asyncio.timeout(20):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 3


async def test_it_recovers_by_itself_without_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(park, "QUIET_SECONDS", 0)
    maker = Maker()
    async with started(maker, size=1) as running:
        await failing(maker, running, STUCK)
        with pytest.raises(Unavailable):
            await running.acquire()
        assert await running.problem() == STUCK.fault.for_clients
        maker.error = None
        async with asyncio.timeout(20):
            await running._freed.wait()
        assert await running.problem() == ""
        assert await running.acquire() is maker.made[-1]


async def test_what_died_after_all_is_a_reason_to_try_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "RETRY_SECONDS", 3600)
    maker = Maker()
    async with started(maker) as running:
        await failing(maker, running, STUCK)
        with pytest.raises(Unavailable):
            await running.acquire()
        await turns()
        maker.error = None
        running.try_again()
        await turns()
        assert await running.acquire() is maker.made[-1]


async def test_one_that_waits_serves_while_no_more_can_be_made() -> None:
    maker = Maker()
    async with started(maker) as running:
        await turns()
        running.circuit.failed(STUCK)
        assert await running.problem() == ""
        assert await running.acquire() is maker.made[0]


async def test_without_a_sandbox_who_asks_has_one_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "LATELY_SECONDS", -1)
    maker = Maker()
    running = park.Park(0, maker.prepare, maker.discard)
    assert await asyncio.gather(*(running.problem() for _ in range(3))) == ["", "", ""]
    assert len(maker.made) == 1  # for all who ask
    await turns()
    assert maker.discarded == maker.made
    maker.slots = 0
    assert await running.problem() == ""  # every slot is in use: that is no fault
    maker.error = FULL  # the first failure of some that open the circuit
    assert await running.problem() == FULL.fault.for_clients
    maker.error = STUCK
    assert await running.problem() == STUCK.fault.for_clients
    await running.close()


async def test_one_that_is_long_in_the_making_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "PROBE_SECONDS", 0)
    maker = Maker(hangs=asyncio.Event())
    running = park.Park(0, maker.prepare, maker.discard)
    assert await running.problem() == faults.SLOW.for_clients
    await running.close()


async def test_one_made_within_the_last_minute_is_proof_enough() -> None:
    maker = Maker()
    running = park.Park(0, maker.prepare, maker.discard)
    await running.acquire()
    assert await running.problem() == ""
    assert maker.asked == 1
    await running.close()


async def test_who_waits_in_vain_gets_one_that_was_finished_meanwhile() -> None:
    maker = Maker()
    async with started(maker) as running:
        await failing(maker, running, STUCK)
        maker.hangs = asyncio.Event()
        taking = asyncio.create_task(running.acquire())
        await turns()
        finished = cast(Sandbox, FakeSandbox())
        running._waiting.append(finished)
        maker.hangs.set()
        async with asyncio.timeout(20):
            assert await taking is finished


@pytest.mark.parametrize(
    ("error", "longest"), [(FULL, park.LONGEST_QUICK_RETRY_SECONDS), (STUCK, park.LONGEST_RETRY_SECONDS)]
)
async def test_what_may_cost_a_slot_is_tried_less_often(
    error: Exception, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    enough = asyncio.Event()

    async def wait(_: park.Park, seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            enough.set()
        await asyncio.sleep(0)

    monkeypatch.setattr(park.Park, "_wait_to_try", wait)
    maker = Maker()
    async with started(maker) as running:
        await failing(maker, running, error)
        running.slot_freed()
        async with asyncio.timeout(20):
            await enough.wait()
    assert pauses[:3] == [1, 2, 4]
    assert pauses[8] == longest
