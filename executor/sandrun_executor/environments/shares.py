"""Divide the parked sandboxes among environments by demand, as far as memory allows."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

MEMORY_SECONDS = 60.0  # demand from longer ago counts less than half
# Fractions of the machine's memory: below FULL available fewer sandboxes are parked, below EMPTY none.
FULL, EMPTY = 0.15, 0.05
# Percent of the last ten seconds in which something waited for memory (PSI); above it none is parked.
PRESSURE = 20.0
# The demand that `default` is assumed to have at least, in jobs per second.
FLOOR = 1 / 120


@dataclass(frozen=True)
class Memory:
    """The available fraction of memory (0 to 1) and its pressure (percent of time that something waited)."""

    available: float
    pressure: float = 0.0

    @classmethod
    def read(cls, proc: Path = Path("/proc")) -> "Memory":
        """Read both from /proc (proc(5), Documentation/accounting/psi.rst); assume plenty without figures."""
        numbers = {}
        for line in _text(proc / "meminfo").splitlines():
            name, _, rest = line.partition(":")
            if rest.split()[:1]:
                numbers[name] = int(rest.split()[0])
        found = re.search(r"^some avg10=([0-9.]+)", _text(proc / "pressure" / "memory"), re.MULTILINE)
        total = numbers.get("MemTotal", 0)
        available = numbers.get("MemAvailable", total) / total if total else 1.0
        return cls(available, float(found[1]) if found else 0.0)

    @property
    def comfort(self) -> float:
        """1 with plenty of memory, 0 if nothing should be kept ahead of demand."""
        if self.pressure >= PRESSURE:
            return 0.0
        return min(1.0, max(0.0, (self.available - EMPTY) / (FULL - EMPTY)))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class Demand:
    """Demand for each environment: job counts that decay exponentially."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[str, tuple[float, float]] = {}  # count, and the time to which it is decayed

    def note(self, name: str) -> None:
        """Count one job."""
        self._counts[name] = (self._faded(name) + 1, self._clock())

    def rate(self, name: str) -> float:
        """Recent jobs per second."""
        return self._faded(name) / MEMORY_SECONDS

    def asked_at(self, name: str) -> float:
        """When its last job came, by the clock; minus infinity if never."""
        return self._counts[name][1] if name in self._counts else -math.inf

    def forget(self, names: Mapping[str, object]) -> None:
        """Keep counts of these names only."""
        self._counts = {name: count for name, count in self._counts.items() if name in names}

    def _faded(self, name: str) -> float:
        count, at = self._counts.get(name, (0.0, 0.0))
        return count * math.exp((at - self._clock()) / MEMORY_SECONDS)


def shared_out(places: int, rates: Mapping[str, float], memory: Memory) -> dict[str, int]:
    """Allot the parked sandboxes: one to each environment if they suffice, the rest by D'Hondt's method.

    The first environment gets the places that nothing demands.
    """
    left = math.floor(places * memory.comfort)
    given = dict.fromkeys(rates, 0)
    for name in sorted(rates, key=rates.__getitem__, reverse=True)[:left]:
        given[name] = 1
    left -= sum(given.values())
    if not given:
        return given
    first = next(iter(rates))
    weights = {name: max(rate, FLOOR if name == first else 0.0) for name, rate in rates.items()}
    for _ in range(left):
        name = max(weights, key=lambda name: weights[name] / (given[name] + 1))
        given[name] += 1
    return given
