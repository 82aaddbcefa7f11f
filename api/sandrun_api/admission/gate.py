"""Whether a client may submit one more job now, and what it is told if not."""

from collections.abc import Callable
from dataclasses import dataclass

from sandrun_api.admission.accounts import Accounts, quota_of_networks
from sandrun_api.admission.budget import MemoryBudget
from sandrun_api.admission.ratelimits import QUEUE_RETRY_SECONDS, fields
from sandrun_api.edge.clients import is_exempt, network_of
from sandrun_api.errors import ApiError
from sandrun_api.jobs.queue import FairQueue
from sandrun_shared.settings import Quota, Settings

STOPPING_RETRY_SECONDS = 5
FULL_RETRY_SECONDS = 10
CLIENTS_RETRY_SECONDS = 60


@dataclass(frozen=True)
class Pause:
    """No new jobs: the operator's reason, and the seconds after which clients are to try again."""

    reason: str
    retry_after: int


class Gate:
    """Admits clients by their quotas, the queue, the memory and the operator's word."""

    def __init__(
        self, settings: Settings, accounts: Accounts, queue: FairQueue, budget: MemoryBudget
    ) -> None:
        self._quota = settings.quota
        self._network_quota = quota_of_networks(settings.quota)
        self._queue_length = settings.limits.queue_length
        self._accounts = accounts
        self._queue = queue
        self._budget = budget
        self.is_closed: Callable[[], bool] = lambda: False  # the server stops
        self.paused: Pause | None = None

    def admit(self, client: str) -> None:
        """Whether the client may submit one more job. Raises ApiError (429, 503)."""
        if self.is_closed():
            raise unavailable("The server is stopping.", STOPPING_RETRY_SECONDS, "stopping")
        if self.paused is not None:
            raise unavailable(self.paused.reason, self.paused.retry_after, "paused")
        shortage = self._accounts.shortage(client)
        if shortage is not None:
            raise self.too_many(client, shortage.reason, shortage.retry_after, shortage.cause)
        self._check_waiting(client)
        if len(self._queue) >= self._queue_length:
            raise unavailable("The queue is full; try again soon.", FULL_RETRY_SECONDS, "queue_full")
        if self._budget.is_spent:
            raise unavailable("The server is short of memory; try again soon.", FULL_RETRY_SECONDS, "memory")
        if not self._accounts.has_room(client, self._queue.knows):
            reason = "The server has too many clients; try again soon."
            raise unavailable(reason, CLIENTS_RETRY_SECONDS, "clients")

    def may_run(self, client: str) -> bool:
        """Whether the client's network has no more jobs running than it may."""
        most, network = self._network_quota.concurrent_jobs, network_of(client)
        return not (most and network) or is_exempt(client) or self._queue.running_of(network) < most

    def limits_of(self, client: str) -> Quota | None:
        """The quotas of the client, None if it is exempt."""
        return None if is_exempt(client) else self._quota

    def rate_limits(self, client: str) -> dict[str, str]:
        """The RateLimit header fields of an answer to the client."""
        if is_exempt(client):
            return {}
        return fields(self._quota, self._accounts, client, self._queue.waiting(client))

    def too_many(self, client: str, reason: str, retry_after: int, cause: str = "unfinished") -> ApiError:
        """The 429 for a client that wants more than its share."""
        headers = self.rate_limits(client)
        return ApiError(429, reason, retry_after=retry_after, headers=headers, cause=cause)

    def _check_waiting(self, client: str) -> None:
        most = self._quota.queued_jobs
        if not most or is_exempt(client):
            return
        if self._queue.waiting(client) >= most:
            reason = f"{most} of your jobs are waiting already."
            raise self.too_many(client, reason, QUEUE_RETRY_SECONDS, "waiting_jobs")
        network, most = network_of(client), self._network_quota.queued_jobs
        if network and self._queue.waiting_of(network) >= most:
            reason = f"{most} jobs of your network are waiting already."
            raise self.too_many(client, reason, QUEUE_RETRY_SECONDS, "waiting_jobs")


def unavailable(reason: str, retry_after: int, cause: str) -> ApiError:
    """The 503 of a server that takes no job now."""
    return ApiError(503, reason, retry_after=retry_after, cause=cause)
