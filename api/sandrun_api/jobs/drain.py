"""The end of a server that is being restarted or upgraded: no new jobs, and time for those there are."""

import asyncio
import time

from sandrun_api.jobs.service import JobService

FETCH_SECONDS = 10.0  # how long at least the results of a job that has just ended can be fetched
_POLL_SECONDS = 0.1


async def drain(service: JobService, seconds: float) -> None:
    """Refuse new jobs and wait for the others, `seconds` at most; then for clients that fetch results.

    Everything else is served meanwhile. 0 seconds waits for nobody.
    """
    service.draining = True
    if not seconds:
        return
    try:
        async with asyncio.timeout(seconds):
            for job in service.store:
                await job.finished.wait()
    except TimeoutError:
        return
    while _fetchable(service):  # noqa: ASYNC110 (nobody tells when a job is forgotten)
        await asyncio.sleep(_POLL_SECONDS)


def _fetchable(service: JobService) -> bool:
    since = time.monotonic() - FETCH_SECONDS
    return any(job.finished_at is not None and job.finished_at > since for job in service.store)
