"""A load with faults: each client learns its job's one result, and the machine is left as before."""

import asyncio

from load import audience, crush, remains
from load.faults import Faults
from load.plan import Behaviour, Plan
from load.storm import check, storm
from support import machine
from support.service import Service

PLAN = Plan(jobs=150, clients=10, seed=1)


def test_every_job_has_one_end_and_nothing_remains() -> None:
    assert {PLAN.task(number).behaviour for number in range(PLAN.jobs)} == set(Behaviour)
    with Service() as service:
        assert service.run("print(1)")["verdict"] == "ok"
        before, shared = remains.settled(service), machine.shared_memory()
        faults = Faults(service)
        account = asyncio.run(storm(service, PLAN, faults))
        assert faults.executor_kills == 1
        assert account.summary()["ok"] > PLAN.jobs / 4
        # The job of the warm-up is counted too.
        check(service, PLAN, faults, account, others=1)
        remains.assert_nothing_more(service, before, shared)


def test_readers_that_never_read_harm_nobody() -> None:
    """Of `tests/load/run.py`: 210 readers and 90 that never read."""
    assert audience.run(readers=12, silent=6, send_seconds=2)["readers"] == 12


def test_uploads_beyond_the_memory_are_refused_and_can_come_again() -> None:
    """Of `tests/load/run.py`: 8 uploads of 98 MB into a budget of 512 MiB."""
    assert crush.run(count=4, megabytes=10, budget_mb=24)["answers"]["200"] == 4
