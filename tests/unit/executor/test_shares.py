"""Parked sandboxes are shared out by demand, and there are fewer when memory is short."""

from pathlib import Path

import pytest

from sandrun_executor.environments import shares
from sandrun_executor.environments.shares import Demand, Memory, shared_out
from support.clocks import FakeClock

PLENTY = Memory(available=0.9)


def test_nobody_asks_for_anything() -> None:
    assert shared_out(8, {"default": 0.0}, PLENTY) == {"default": 8}
    assert shared_out(8, {"default": 0.0, "a": 0.0, "b": 0.0}, PLENTY) == {"default": 6, "a": 1, "b": 1}


def test_the_busy_get_the_places() -> None:
    assert shared_out(8, {"default": 0.0, "a": 5.0}, PLENTY) == {"default": 1, "a": 7}
    assert shared_out(8, {"default": 3.0, "a": 1.0}, PLENTY) == {"default": 6, "a": 2}
    assert shared_out(3, {"default": 1.0, "a": 1.0, "b": 1.0}, PLENTY) == {"default": 1, "a": 1, "b": 1}
    assert shared_out(2, {"default": 0.0, "a": 1.0, "b": 2.0}, PLENTY) == {"default": 0, "a": 1, "b": 1}


@pytest.mark.parametrize("places", range(12))
@pytest.mark.parametrize("rates", [(0, 0, 0), (1, 0, 7), (0.1, 0.2, 0.3)])
def test_it_gives_what_there_is(places: int, rates: tuple[float, ...]) -> None:
    given = shared_out(places, dict(zip(("default", "a", "b"), rates, strict=True)), PLENTY)
    assert sum(given.values()) == places
    assert min(given.values()) >= (1 if places >= 3 else 0)


@pytest.mark.parametrize(
    ("memory", "places"),
    [
        (Memory(0.15), 8),
        (Memory(0.10), 4),
        (Memory(0.06), 0),
        (Memory(0.01), 0),
        (Memory(0.9, pressure=shares.PRESSURE), 0),
        (Memory(0.9, pressure=1.0), 8),
    ],
)
def test_fewer_when_memory_is_short(memory: Memory, places: int) -> None:
    assert sum(shared_out(8, {"default": 1.0, "a": 1.0}, memory).values()) == places


def test_demand_fades() -> None:
    clock = FakeClock()
    demand = Demand(clock.seconds)
    for _ in range(60):
        demand.note("a")
    assert demand.rate("a") == pytest.approx(60 / shares.MEMORY_SECONDS)
    assert demand.rate("b") == 0
    assert demand.asked_at("a") == clock.seconds()
    assert demand.asked_at("b") < 0
    clock.advance(shares.MEMORY_SECONDS)
    demand.note("b")
    assert demand.rate("a") == pytest.approx(60 / shares.MEMORY_SECONDS / 2.718, rel=0.01)
    assert demand.asked_at("a") < demand.asked_at("b")
    # After a quarter of an hour without a job, nothing of it is left but the one place that each warm one has.
    clock.advance(900)
    rates = {"default": 0.0, "a": demand.rate("a")}
    assert shared_out(8, rates, PLENTY) == {"default": 7, "a": 1}
    demand.forget({"b": None})
    assert demand.rate("a") == 0


def test_memory_is_read_as_the_kernel_says_it(tmp_path: Path) -> None:
    assert Memory.read(tmp_path) == Memory(1.0, 0.0)
    (tmp_path / "meminfo").write_text(
        "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  250 kB\nHugePages: 0\n"
    )
    assert Memory.read(tmp_path) == Memory(0.25, 0.0)
    (tmp_path / "pressure").mkdir()
    pressure = "avg60=1.00 avg300=0.10 total=1"
    (tmp_path / "pressure" / "memory").write_text(
        f"some avg10=12.50 {pressure}\nfull avg10=3.00 {pressure}\n"
    )
    assert Memory.read(tmp_path) == Memory(0.25, 12.5)
    assert 0 < Memory.read().available <= 1
