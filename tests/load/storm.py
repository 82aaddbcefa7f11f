"""A whole load: clients that take one task after the other, the faults between, and the account of it."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from load import remains
from load.behaviours import BEHAVIOURS
from load.client import Accepted, Client, Lost
from load.faults import Faults
from load.plan import Plan
from support import machine
from support.service import Service

TIMEOUT_SECONDS = 120.0


@dataclass
class Account:
    """What came of the jobs: accepted ones by id, ends by number of the task."""

    accepted: dict[str, Accepted] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)

    def took(self, accepted: Accepted) -> None:
        """Write down a job; the same one is told of again only by a retry."""
        known = self.accepted.setdefault(accepted.job_id, accepted)
        assert known.task == accepted.task, f"{known} and {accepted} have one id"

    def end(self, number: int, end: str) -> None:
        """Write down how a task ended, which happens once."""
        assert number not in self.ends
        self.ends[number] = end

    def summary(self) -> dict[str, int]:
        """How many tasks ended in which way."""
        return dict(sorted(Counter(self.ends.values()).items()))


async def storm(service: Service, plan: Plan, faults: Faults) -> Account:
    """Run the plan. Raises AssertionError (in a group) for whatever nothing explains."""
    account = Account()
    numbers = iter(range(plan.jobs))
    one_at_a_time = asyncio.Lock()
    context = ssl.create_default_context()  # made once: it is expensive, and nobody uses it
    async with asyncio.TaskGroup() as group:
        for _ in range(plan.clients):
            group.create_task(_client(service, plan, faults, account, numbers, one_at_a_time, context))
    return account


async def _client(
    service: Service,
    plan: Plan,
    faults: Faults,
    account: Account,
    numbers: Iterator[int],
    one_at_a_time: asyncio.Lock,
    context: ssl.SSLContext,
) -> None:
    planned = plan.faults()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{service.port}", timeout=TIMEOUT_SECONDS, verify=context, trust_env=False
    ) as http:
        client = Client(http, faults)
        for number in numbers:
            if number in planned:
                async with one_at_a_time:
                    await faults.kill(planned[number])
            task = plan.task(number)
            try:
                end = await BEHAVIOURS[task.behaviour](client, task, account.took)
            except Lost:
                end = "lost with the api"
            account.end(number, end)


def check(service: Service, plan: Plan, faults: Faults, account: Account, others: int = 0) -> None:
    """Every task has an end, and the service counts as many jobs as clients know of. Raises AssertionError.

    others are jobs of somebody else in the api's present life.
    """
    assert account.ends.keys() == set(range(plan.jobs))
    known = others + sum(accepted.life == faults.life for accepted in account.accepted.values())
    counted: list[float] = []

    def agrees() -> bool:
        counted[:] = [remains.metric(service, "sandrun_jobs_total")]
        return counted == [known]

    assert machine.eventually(agrees), f"clients know of {known} jobs, the service counts {counted}"
    faults.logs.append(service.log.read_text())
    for log in faults.logs:
        assert "Traceback" not in log, log
