"""Loads Sandrun with jobs and faults: sudo .venv/bin/python tests/load/run.py [--jobs N] [--seed N] …

First many jobs from many clients, some of which leave in the middle, while daemons are killed; then many
readers of which some never read, more uploads at once than there is memory for, and the api's memory after many
small jobs. What nothing explains ends it with an error that says what it was.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from load import audience, crush, growth, remains
from load.faults import Faults
from load.plan import Plan
from load.storm import check, storm
from support import machine
from support.service import Service


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--executor-kills", type=int, default=3)
    parser.add_argument("--api-restarts", type=int, default=1)
    parser.add_argument("--readers", type=int, default=210, help="of live output; 0 leaves them out")
    parser.add_argument("--silent", type=int, default=90, help="besides, that never read")
    parser.add_argument("--uploads", type=int, default=8, help="of 98 MB at once; 0 leaves them out")
    parser.add_argument("--budget-mb", type=int, default=512, help="memory of the api for them")
    parser.add_argument("--memory-jobs", type=int, default=20_000, help="small jobs; 0 leaves them out")
    parser.add_argument("--memory-seconds", type=float, default=3600.0, help="no more of them after that")
    return parser.parse_args(arguments)


def load(plan: Plan) -> None:
    """Run the plan on a new service. Raises AssertionError."""
    # A service that was started again is a child of a thread of the runner's, and ends with it (prctl(2)).
    with asyncio.Runner() as runner, Service() as service:
        assert service.run("print(1)")["verdict"] == "ok"
        before, shared = remains.settled(service), machine.shared_memory()
        faults = Faults(service)
        began = time.monotonic()
        account = runner.run(storm(service, plan, faults))
        seconds = time.monotonic() - began
        # The first job was of another life of the api, if it was restarted.
        check(service, plan, faults, account, others=0 if faults.life else 1)
        after = remains.assert_nothing_more(service, before, shared)
        counts = {"seconds": round(seconds, 1), "accepted": len(account.accepted), "ends": account.summary()}
        print(json.dumps({**counts, "descriptors": after.descriptors}), flush=True)
    assert not machine.of_jobs(service)
    assert not machine.cgroups(service)


def grow(jobs: int, seconds: float) -> None:
    """Run many small jobs on a new service. Raises AssertionError if its memory grows."""
    first: dict[str, int] = {}
    sizes: dict[str, int] = {}
    done = 0
    with Service(slots=growth.CLIENTS, parked=growth.CLIENTS) as service:
        for done, sizes in growth.growth(service, jobs, seconds):
            print(json.dumps({"jobs": done, "api KiB": sizes}), flush=True)
            if done == growth.FIRST:
                first = sizes
    assert first, f"fewer than {growth.FIRST} jobs in all: there is nothing to compare with"
    if done < jobs:
        print(f"time was up after {done} of {jobs} jobs", file=sys.stderr)
    for name, size in first.items():
        assert sizes[name] - size <= growth.ALLOWED_KIB, f"{name} grew from {size} to {sizes[name]} KiB"


def main(arguments: list[str]) -> int:
    """0 when everything is as it must be."""
    options = parse(arguments)
    if os.geteuid() != 0:
        print("run this as root: it starts an executor", file=sys.stderr)
        return 1
    # A time limit of the caller ends the service too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.jobs:
        load(
            Plan(
                options.jobs,
                options.clients,
                options.seed,
                executor_kills=options.executor_kills,
                api_restarts=options.api_restarts,
            )
        )
    if options.readers:
        print(json.dumps(audience.run(options.readers, options.silent)), flush=True)
    if options.uploads:
        print(json.dumps(crush.run(options.uploads, 98, options.budget_mb)), flush=True)
    if options.memory_jobs:
        grow(options.memory_jobs, options.memory_seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
