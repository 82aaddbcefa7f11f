"""The memory held for clients: uploads, logs and outputs, together within one budget."""

from collections.abc import Callable

from sandrun_api.errors import ApiError


class MemoryBudget:
    """Counts bytes; `relieve` is called above the pressure mark and may free some."""

    def __init__(self, limit_bytes: int, pressure_percent: float = 80.0) -> None:
        self.limit_bytes = limit_bytes
        self._pressure_bytes = limit_bytes * pressure_percent / 100
        self.used_bytes = 0
        self.relieve: Callable[[], None] = lambda: None

    @property
    def under_pressure(self) -> bool:
        """Whether finished jobs should make room."""
        return self.used_bytes > self._pressure_bytes

    @property
    def is_spent(self) -> bool:
        """Whether there is no room for anything more."""
        return self.used_bytes >= self.limit_bytes

    def add(self, size: int) -> None:
        """Count bytes that are there already, negative when they are gone."""
        self.used_bytes += size
        if size > 0 and self.under_pressure:
            self.relieve()


class Reservation:
    """The bytes of one request or job; closing it gives them all back."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.size = 0

    def add(self, size: int) -> None:
        """Count bytes that exist whether there is room or not: what a job made."""
        self.size += size
        self._budget.add(size)

    def ask(self, size: int) -> None:
        """Count bytes a client wants to bring. Raises ApiError (503) when there is no room for them."""
        self.add(size)
        if self._budget.used_bytes > self._budget.limit_bytes:
            self.add(-size)
            raise ApiError(503, "The server is short of memory; try again soon.", retry_after=10)

    def close(self) -> None:
        """Give everything back."""
        self.add(-self.size)
