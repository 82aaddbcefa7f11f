"""From SIGKILL to a daemon until `GET /health` is 200 again, the service manager's delay included."""

import time

from clients import pause
from stack import Stack

RESTART_SECONDS = 0.1  # RestartSec of both units
NAMES = ("executor", "api")


def seconds(stack: Stack, times: int) -> dict[str, list[float]]:
    """By daemon, of each time."""
    taken: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(times):
        for name in NAMES:
            began = time.perf_counter()
            stack.kill(name)
            pause(RESTART_SECONDS)
            stack.start(name)
            taken[name].append(time.perf_counter() - began)
    return taken
