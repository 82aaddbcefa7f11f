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
    """So many at once: KiB of each in all processes and in its cgroup, seconds from request to first output."""

    pss_kib: float
    cgroup_kib: float
    starts: list[float]


def levels(executor: int, socket_path: str, starts: int) -> dict[int, Level]:
    """By number of jobs; at each, so many more start one after the other, after a pause, and end again."""
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
