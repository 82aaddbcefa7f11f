"""The accounts of clients and, where networks have quotas too, of their networks."""

from collections.abc import Callable

from msgspec import structs

from sandrun_api.admission.quotas import Clock, Ledger, Shortage, clock
from sandrun_api.edge.clients import is_exempt, network_of
from sandrun_shared.settings import Quota


def quota_of_networks(quota: Quota) -> Quota:
    """What a network may use: a multiple of what one address may."""
    factor = quota.network_factor
    return structs.replace(
        quota,
        cpu_seconds_per_minute=quota.cpu_seconds_per_minute * factor,
        concurrent_jobs=quota.concurrent_jobs * factor,
        jobs_per_hour=quota.jobs_per_hour * factor,
        queued_jobs=quota.queued_jobs * factor,
    )


class Accounts(Ledger):
    """A ledger of clients that asks and charges their networks, too."""

    def __init__(self, quota: Quota, now: Clock = clock) -> None:
        super().__init__(quota, now)
        self.network_is_busy: Callable[[str], bool] = lambda _: False
        self._networks = Ledger(quota_of_networks(quota), now, "Your network's ")

    def submitted(self, client: str) -> None:
        """Count a submission."""
        super().submitted(client)
        if network := _limited_network(client):
            self._networks.submitted(network)

    def charge(self, client: str, cpu_seconds: float) -> None:
        """Count CPU time that a job of the client used just now."""
        super().charge(client, cpu_seconds)
        if network := _limited_network(client):
            self._networks.charge(network, cpu_seconds)

    def cpu_wait(self, client: str) -> int:
        """Nanoseconds until the client and its network have CPU time left; 0 if they have some."""
        return max(super().cpu_wait(client), self._networks.cpu_wait(_limited_network(client)))

    def shortage(self, client: str) -> Shortage | None:
        """What keeps the client from submitting, the longest if there are several; None if nothing does."""
        found = (super().shortage(client), self._networks.shortage(_limited_network(client)))
        return max((item for item in found if item), key=lambda item: item.retry_after, default=None)

    def has_room(self, client: str, is_busy: Callable[[str], bool]) -> bool:
        """As a ledger, for the network as well."""
        network = _limited_network(client)
        return super().has_room(client, is_busy) and (
            not network or self._networks.has_room(network, self.network_is_busy)
        )

    def forget_idle(self, is_busy: Callable[[str], bool]) -> float | None:
        """As a ledger, for the networks as well."""
        pauses = (super().forget_idle(is_busy), self._networks.forget_idle(self.network_is_busy))
        return min((pause for pause in pauses if pause is not None), default=None)


def _limited_network(client: str) -> str:
    return "" if is_exempt(client) else network_of(client)
