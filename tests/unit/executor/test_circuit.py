"""Jobs that wait for a sandbox are refused at once when none can be made."""

import asyncio
import errno

import pytest

from sandrun_executor.cgroups.probe import CgroupError
from sandrun_executor.environments.circuit import FAILURES, Circuit, Unavailable
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.sandbox import SandboxError
from sandrun_executor.sandboxes.slots import SlotsRetiredError
from sandrun_executor.sandboxes.zygote import ZygoteError
from support.clocks import FakeClock

pytestmark = pytest.mark.anyio
FULL = SandboxError(faults.of_step("seccomp", 524))
STUCK = SandboxError(faults.of_stuck([], 5.0), is_stuck=True)


def name_of(error: Exception) -> str:
    return type(error).__name__


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("error", [FULL, CgroupError("x"), OSError(errno.EAGAIN, "x")], ids=name_of)
async def test_what_fails_quickly_opens_it_after_some_in_a_row(error: Exception) -> None:
    circuit = Circuit()
    for _ in range(FAILURES - 1):
        circuit.failed(error)
    circuit.made()
    for _ in range(FAILURES - 1):
        circuit.failed(error)
    assert not circuit.is_open
    circuit.failed(error)
    assert circuit.is_open
    assert circuit.failures == 2 * FAILURES - 1


@pytest.mark.parametrize("error", [STUCK, ZygoteError("x"), SlotsRetiredError()], ids=name_of)
async def test_what_takes_long_opens_it_at_once(error: Exception) -> None:
    circuit = Circuit()
    opened: list[bool] = []
    circuit.on_open = lambda: opened.append(circuit.is_open)
    circuit.failed(error)
    circuit.failed(error)
    assert opened == [True]


async def test_who_waits_and_who_comes_is_told_the_cause() -> None:
    circuit = Circuit()

    async def wait() -> None:
        async with circuit.waiting(3600):
            await asyncio.Event().wait()

    waiting = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    circuit.failed(STUCK)
    async with asyncio.timeout(20):
        results = await asyncio.gather(*waiting, wait(), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 4
    assert all(isinstance(result, Unavailable) and result.fault == STUCK.fault for result in results)


async def test_too_long_is_no_failure_of_making() -> None:
    circuit = Circuit()
    with pytest.raises(TimeoutError):
        async with circuit.waiting(0):
            await asyncio.Event().wait()
    assert not circuit.is_open


async def test_the_first_that_is_made_closes_it() -> None:
    circuit = Circuit()
    circuit.failed(STUCK)
    circuit.made()
    async with circuit.waiting(20):
        pass
    circuit.check()


async def test_when_one_was_made_lately() -> None:
    clock = FakeClock()
    circuit = Circuit(clock.seconds)
    assert not circuit.made_within(1e9)
    circuit.made()
    clock.advance(60)
    assert circuit.made_within(60)
    clock.advance(1)
    assert not circuit.made_within(60)
