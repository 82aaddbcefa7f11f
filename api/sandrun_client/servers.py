"""Operations on the server itself."""

import secrets

from sandrun_client import receipts
from sandrun_client.errors import UnexpectedAnswer
from sandrun_client.exchange import Flow, Policy, Request, ask
from sandrun_client.jobs import read
from sandrun_client.models import Connection
from sandrun_client.server_models import Environments, Stats


def test_connection(policy: Policy, url: str) -> Flow[Connection]:
    """Whether there is a healthy Sandrun server, and the worker named by `verify_with` behind it."""
    nonce = secrets.token_urlsafe(24)
    params = {"nonce": nonce} if policy.verify_with is not None else {}
    health = (yield from ask(policy, Request("GET", "/health", params))).document()
    if policy.verify_with is not None:
        receipts.check_nonce(policy.verify_with, nonce, health.get("signature"))
    server = (yield from ask(policy, Request("GET", "/", headers={"Accept": "application/json"}))).document()
    if server.get("service") != "sandrun" or health.get("status") != "healthy":
        raise UnexpectedAnswer(f"{url} is no Sandrun server.")
    return Connection(
        url=url,
        version=str(server.get("version")),
        worker_id=str(health.get("worker_id") or ""),
        verified=policy.verify_with is not None,
        interpreters=tuple(server.get("interpreters") or ()),
        limits=server.get("limits") or {},
    )


def get_stats(policy: Policy) -> Flow[Stats]:
    """What this address has used and may use, and how busy the server is."""
    return read(Stats.of, (yield from ask(policy, Request("GET", "/stats"))).document())


def list_environments(policy: Policy) -> Flow[Environments]:
    """The environments a job may name."""
    return read(Environments.of, (yield from ask(policy, Request("GET", "/environments"))).document())
