"""What each client may use: windows of CPU time and of submissions, for as many clients as there is room.

Times are nanoseconds of a monotonic clock, as integers, so that the time a client is told to wait is right.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from sandrun_api.edge.clients import is_exempt
from sandrun_shared.settings import Quota

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 3600 * SECOND
CPU_GRAIN = SECOND // 4  # charges this close to each other are one: at most 240 in a minute
COUNT_GRAIN = 10 * SECOND  # of submissions that are only counted, not limited

Clock = Callable[[], int]
clock: Clock = time.monotonic_ns


@dataclass(slots=True)
class _Entry:
    first: int
    until: int
    amount: int


class Window:
    """Amounts of the last `span`; those within `grain` of each other expire together, with the last."""

    __slots__ = ("_entries", "_grain", "_span", "_total")

    def __init__(self, span: int, grain: int) -> None:
        self._span = span
        self._grain = grain
        self._entries: deque[_Entry] = deque()
        self._total = 0

    def add(self, now: int, amount: int) -> None:
        """Count an amount."""
        self.total(now)
        last = self._entries[-1] if self._entries else None
        if last is not None and now - last.first < self._grain:
            last.amount += amount
            last.until = now + self._span
        else:
            self._entries.append(_Entry(now, now + self._span, amount))
        self._total += amount

    def total(self, now: int) -> int:
        """What was counted within the span."""
        while self._entries and self._entries[0].until <= now:
            self._total -= self._entries.popleft().amount
        return self._total

    def wait(self, now: int, limit: int) -> int:
        """Nanoseconds until the total is below the limit, if nothing is added; 0 if it is now."""
        left = self.total(now)
        wait = 0
        for entry in self._entries:
            if left < limit:
                break
            left -= entry.amount
            wait = entry.until - now
        return wait


class _Account:
    __slots__ = ("cpu", "seen", "submissions")

    def __init__(self, counted_grain: int) -> None:
        self.cpu = Window(MINUTE, CPU_GRAIN)
        self.submissions = Window(HOUR, counted_grain)
        self.seen = 0


@dataclass(frozen=True)
class Shortage:
    """Why a client may not submit now, and the whole seconds after which it may; cause is for metrics."""

    reason: str
    retry_after: int
    cause: str


@dataclass(frozen=True)
class Usage:
    """What a client used: CPU seconds of the last minute, submissions of the last hour."""

    cpu_seconds: float
    submissions: int


class Ledger:
    """The accounts of all clients, by key; an hour without activity forgets one.

    What an exempt client uses is counted and never too much. `whose` begins the reasons of a shortage.
    """

    def __init__(self, quota: Quota, now: Clock = clock, whose: str = "") -> None:
        self._whose = whose
        self._quota = quota
        self._cpu_limit = round(quota.cpu_seconds_per_minute * SECOND)
        self._clock = now
        self._accounts: OrderedDict[str, _Account] = OrderedDict()  # least recently active first

    def __len__(self) -> int:
        return len(self._accounts)

    def submitted(self, client: str) -> None:
        """Count a submission."""
        now = self._clock()
        self._touch(client, now).submissions.add(now, 1)

    def charge(self, client: str, cpu_seconds: float) -> None:
        """Count CPU time that a job of the client used just now."""
        now = self._clock()
        self._touch(client, now).cpu.add(now, round(cpu_seconds * SECOND))

    def usage(self, client: str) -> Usage:
        """What the client used."""
        account, now = self._accounts.get(client), self._clock()
        if account is None:
            return Usage(0.0, 0)
        return Usage(account.cpu.total(now) / SECOND, account.submissions.total(now))

    def cpu_wait(self, client: str) -> int:
        """Nanoseconds until the client has CPU time left; 0 if it has some."""
        account = self._accounts.get(client)
        if account is None or not self._cpu_limit or is_exempt(client):
            return 0
        return account.cpu.wait(self._clock(), self._cpu_limit)

    def submissions_wait(self, client: str) -> int:
        """Nanoseconds until the client may submit by the count of the last hour; 0 if it may."""
        account = self._accounts.get(client)
        if account is None or not self._quota.jobs_per_hour or is_exempt(client):
            return 0
        return account.submissions.wait(self._clock(), self._quota.jobs_per_hour)

    def shortage(self, client: str) -> Shortage | None:
        """What keeps the client from submitting, the longest if there are two; None if nothing does."""
        cpu, submissions = self.cpu_wait(client), self.submissions_wait(client)
        if not cpu and not submissions:
            return None
        usage = self.usage(client)
        if cpu >= submissions:
            limit = self._quota.cpu_seconds_per_minute
            used = f"{usage.cpu_seconds:.1f}/{limit:.1f} seconds used"
            reason = f"{self._whose}CPU quota exhausted ({used})"
            return Shortage(reason, whole_seconds(cpu), self._cause("cpu"))
        used = f"{usage.submissions}/{self._quota.jobs_per_hour} jobs submitted in the last hour"
        reason = (
            f"{self._whose}hourly quota exhausted ({used})"
            if self._whose
            else f"Hourly quota exhausted ({used})"
        )
        return Shortage(reason, whole_seconds(submissions), self._cause("jobs"))

    def has_room(self, client: str, is_busy: Callable[[str], bool]) -> bool:
        """Whether the client has an account or can have one; may evict the least recently active idle one."""
        if client in self._accounts or len(self._accounts) < self._quota.addresses:
            return True
        idle = next((known for known in self._accounts if not is_busy(known)), None)
        if idle is None:
            return False
        del self._accounts[idle]
        return True

    def forget_idle(self, is_busy: Callable[[str], bool]) -> float | None:
        """Forget accounts without a job or activity for an hour; seconds until the next is due, if any."""
        now = self._clock()
        while self._accounts:
            client, account = next(iter(self._accounts.items()))
            if account.seen + HOUR > now:
                return (account.seen + HOUR - now) / SECOND
            if is_busy(client):
                self._touch(client, now)
            else:
                del self._accounts[client]
        return None

    def _cause(self, name: str) -> str:
        return f"network_{name}" if self._whose else name

    def _touch(self, client: str, now: int) -> _Account:
        account = self._accounts.get(client)
        if account is None:
            is_limited = self._quota.jobs_per_hour and not is_exempt(client)
            account = _Account(0 if is_limited else COUNT_GRAIN)
            self._accounts[client] = account
        account.seen = now
        self._accounts.move_to_end(client)
        return account


def whole_seconds(nanoseconds: int) -> int:
    """The fewest whole seconds that are not shorter."""
    return -(-nanoseconds // SECOND)
