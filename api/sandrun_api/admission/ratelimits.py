"""RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10): lists of RFC 9651 Items.

Policies: "cpu" (CPU seconds, or milliseconds when the quota is not whole), "jobs" (submissions) and
"queue" (jobs waiting). `t` is only there when nothing remains: the seconds until something does.
"""

import math
from dataclasses import dataclass

from sandrun_api.admission.quotas import HOUR, MINUTE, SECOND, Ledger, whole_seconds
from sandrun_shared.settings import Quota

QUEUE_RETRY_SECONDS = 10  # nobody knows when a job of the client will start


@dataclass(frozen=True)
class _Limit:
    name: str
    quota: int
    remaining: int
    reset: int
    window: int | None = None
    unit: str | None = None  # None is "requests"

    @property
    def policy(self) -> str:
        """The Item of RateLimit-Policy."""
        unit = "" if self.unit is None else f';qu="{self.unit}"'
        window = "" if self.window is None else f";w={self.window}"
        return f'"{self.name}";q={self.quota}{unit}{window}'

    @property
    def state(self) -> str:
        """The Item of RateLimit."""
        reset = "" if self.remaining else f";t={self.reset}"
        return f'"{self.name}";r={self.remaining}{reset}'


def fields(quota: Quota, ledger: Ledger, client: str, waiting: int) -> dict[str, str]:
    """Both header fields for a client with `waiting` jobs in the queue; none if nothing is limited."""
    limits = []
    usage = ledger.usage(client)
    if quota.cpu_seconds_per_minute:
        limits.append(_cpu(quota.cpu_seconds_per_minute, usage.cpu_seconds, ledger.cpu_wait(client)))
    if quota.jobs_per_hour:
        left = max(0, quota.jobs_per_hour - usage.submissions)
        reset = whole_seconds(ledger.submissions_wait(client))
        limits.append(_Limit("jobs", quota.jobs_per_hour, left, reset, HOUR // SECOND))
    if quota.queued_jobs:
        left = max(0, quota.queued_jobs - waiting)
        limits.append(
            _Limit("queue", quota.queued_jobs, left, QUEUE_RETRY_SECONDS, unit="concurrent-requests")
        )
    if not limits:
        return {}
    return {
        "RateLimit-Policy": ", ".join(limit.policy for limit in limits),
        "RateLimit": ", ".join(limit.state for limit in limits),
    }


def _cpu(limit_seconds: float, used_seconds: float, wait: int) -> _Limit:
    factor, unit = (1, "cpu-seconds") if limit_seconds.is_integer() else (1000, "cpu-milliseconds")
    # Rounded up, because a client that has a part of a second left may submit.
    left = max(0, math.ceil((limit_seconds - used_seconds) * factor))
    return _Limit("cpu", round(limit_seconds * factor), left, whole_seconds(wait), MINUTE // SECOND, unit)
