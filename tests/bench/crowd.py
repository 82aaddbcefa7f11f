"""Sleeping jobs, few and many at once: what each takes in memory, and how long one more takes to start."""

import contextlib
import time
from dataclasses import dataclass

from clients import pause
from memory import SETTLE_SECONDS, charged_kib, sleeping, total_pss

COUNTS = (1, 10, 50, 200)
IDLE_SECONDS = 0.1


@dataclass(frozen=True)
class Level:
    """One crowd of jobs: KiB per job in all processes and in its cgroup, seconds from request to first output."""

    pss_kib: float
    cgroup_kib: float
    starts: list[float]


def levels(executor: int, socket_path: str, starts: int) -> dict[int, Level]:
    """Measure by number of running jobs; at each number, as many more start one after the other, and end."""
    found: dict[int, Level] = {}
    pause(SETTLE_SECONDS)
    nothing = total_pss(executor)
    with contextlib.ExitStack() as stack:
        jobs = []
        for count in COUNTS:
            while len(jobs) < count:
                jobs.append(stack.enter_context(sleeping(socket_path)))
            taken = []
            for _ in range(starts):
                pause(IDLE_SECONDS)
                began = time.perf_counter()
                with sleeping(socket_path):
                    taken.append(time.perf_counter() - began)
            pause(SETTLE_SECONDS)
            pss = (total_pss(executor) - nothing) / count
            found[count] = Level(pss, charged_kib(jobs[-1]), taken)
    return found
