"""The memory held for clients: requests under way, uploads, logs and outputs, together within one budget.

What a request holds before it has become a job also counts against a share of its client, so that one
address alone cannot use up the budget with requests that it never finishes.
"""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from sandrun_api.errors import ApiError

UNFINISHED_RETRY_SECONDS = 5  # nobody knows when a request of the client will end


def _too_much(_: str, reason: str, retry_after: int) -> ApiError:
    return ApiError(429, reason, retry_after=retry_after)


class MemoryBudget:
    """Counts bytes; `relieve` is called above the pressure mark and may free some.

    share_bytes is what the unfinished requests of one client may hold; 0 is no limit. `too_much` makes the
    error for a client that wants more, from its key, the reason and the seconds until it may try again.
    """

    def __init__(self, limit_bytes: int, pressure_percent: float = 80.0, share_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self.share_bytes = share_bytes
        self._pressure_bytes = limit_bytes * pressure_percent / 100
        self.used_bytes = 0
        self.relieve: Callable[[], None] = lambda: None
        self.too_much: Callable[[str, str, int], ApiError] = _too_much
        self._unfinished: Counter[str] = Counter()

    @property
    def under_pressure(self) -> bool:
        """Whether finished jobs should make room."""
        return self.used_bytes > self._pressure_bytes

    @property
    def is_spent(self) -> bool:
        """Whether there is no room for anything more."""
        return self.used_bytes >= self.limit_bytes

    def unfinished(self, client: str) -> int:
        """Bytes that unfinished requests of the client hold."""
        return self._unfinished[client]

    def charge(self, size: int) -> None:
        """Count bytes whether there is room or not; a negative size gives them back."""
        self.used_bytes += size
        if size > 0 and self.under_pressure:
            self.relieve()

    def charge_share(self, client: str, size: int) -> None:
        """Count bytes against a client's share; a negative size gives them back."""
        self._unfinished[client] += size
        if not self._unfinished[client]:
            del self._unfinished[client]

    def check_share(self, client: str, size: int) -> None:
        """Raise ApiError (429) unless the client's unfinished requests may hold that much more."""
        if self.share_bytes and self._unfinished[client] + size > self.share_bytes:
            reason = (
                f"Your address has {self.share_bytes >> 20} MiB in requests and answers that are not "
                "finished; let one of them end first."
            )
            raise self.too_much(client, reason, UNFINISHED_RETRY_SECONDS)


class Reservation:
    """The bytes of one request or job; closing it gives them all back.

    With a client it is that of an unfinished request, and counts against the client's share until it is
    settled or closed.
    """

    __slots__ = ("_budget", "_client", "size")

    def __init__(self, budget: MemoryBudget, client: str | None = None) -> None:
        self._budget = budget
        self._client = client
        self.size = 0

    def charge(self, size: int) -> None:
        """Count bytes whether there is room or not: what a job made; a negative size gives them back."""
        self.size += size
        if self._client is not None:
            self._budget.charge_share(self._client, size)
        self._budget.charge(size)

    def reserve(self, size: int) -> None:
        """Count bytes that a client wants to bring.

        Raises ApiError: 429 when they are more than its share, 503 when there is no room for them.
        """
        if self._client is not None:
            self._budget.check_share(self._client, size)
        self.charge(size)
        if self._budget.used_bytes > self._budget.limit_bytes:
            self.charge(-size)
            reason = "The server is short of memory; try again soon."
            raise ApiError(503, reason, retry_after=10, cause="memory")

    def settle(self) -> None:
        """The request has become a job: its bytes stay, and count against no share any more."""
        if self._client is not None:
            self._budget.charge_share(self._client, -self.size)
            self._client = None

    def release(self) -> None:
        """Give everything back; more may come."""
        self.charge(-self.size)

    def close(self) -> None:
        """Give everything back."""
        self.release()


def size_of(*values: Any) -> int:
    """Bytes that texts, byte strings and collections of them take in memory, about."""
    total = 0
    for value in values:
        if isinstance(value, (list, tuple)):
            total += 8 * len(value) + size_of(*value)
        elif isinstance(value, dict):
            total += 100 * len(value) + size_of(*value, *value.values())
        elif value is not None:
            total += sys.getsizeof(value)
    return total
