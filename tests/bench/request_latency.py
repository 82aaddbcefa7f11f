"""Latency of single requests while clients keep the service busy with jobs."""

import time
from collections.abc import Callable

from clients import PROGRAMS, HttpClient
from measures import at_once

CLIENTS = 8
Taken = dict[str, list[float]]


def latencies(port: int, seconds: float) -> Taken:
    """Seconds of every POST /submit and of the GET /status of that job, of all clients together.

    Each client has one job at a time: it submits, asks, waits until the job has ended, deletes it.
    """

    def prepare() -> Callable[[], Taken]:
        client = HttpClient(port, PROGRAMS[0])
        client.end(client.submit())

        def work() -> Taken:
            taken: Taken = {"POST /submit": [], "GET /status": []}
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                job_id = client.submit()
                submitted = time.perf_counter()
                client.status(job_id)
                taken["GET /status"].append(time.perf_counter() - submitted)
                taken["POST /submit"].append(submitted - start)
                client.end(job_id)
                client.delete(job_id)
            return taken

        return work

    told = at_once(prepare, CLIENTS)
    return {name: [value for taken in told for value in taken[name]] for name in told[0]}
