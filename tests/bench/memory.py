"""Memory of the daemons, of the zygote, of one more sandbox, and of the api after many jobs."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from clients import PROGRAMS, ExecutorJob, HttpClient, Program, pause
from measures import at_once

SLEEPER = Program("sleeper", "python3", "", "import time\nprint(1, flush=True)\ntime.sleep(300)\n", b"")
SETTLE_SECONDS = 1.5
CLIENTS = 8


def rollup(pid: int) -> dict[str, int]:
    """Rss and Pss in KiB (proc_pid_smaps_rollup(5)); nothing for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {"rss": 0, "pss": 0}
    fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
    return {name.lower(): int(fields[name].split()[0]) for name in ("Rss", "Pss")}


def children(pid: int) -> list[int]:
    """The children of a process (proc_pid_task_children(5))."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid: int) -> list[int]:
    """All below a process."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def total_pss(executor: int) -> int:
    """KiB of the executor and of everything below it."""
    return sum(rollup(pid)["pss"] for pid in (executor, *descendants(executor)))


def _parked(zygote: int) -> list[list[int]]:
    """The processes of each parked sandbox."""
    return [[pid, *descendants(pid)] for pid in children(zygote)]


@contextlib.contextmanager
def sleeping(socket_path: str) -> Iterator[ExecutorJob]:
    """A job that has printed, and sleeps until it is left."""
    job = ExecutorJob(socket_path, SLEEPER)
    try:
        while not job.printed:
            if job.step() is not None:
                raise RuntimeError("a sleeping job ended")
        yield job
    finally:
        job.close()


def charged_kib(job: ExecutorJob) -> float:
    """What the cgroup of a sleeping job holds, as the executor tells it once a second."""
    while job.usage is None:
        if job.step() is not None:
            raise RuntimeError("a sleeping job ended")
    return job.usage.memory_bytes / 1024


def measure(executor: int, api: int, socket_path: str, count: int) -> dict[str, float]:
    """KiB of everything; `count` sleeping jobs tell what one more costs."""
    pause(SETTLE_SECONDS)
    zygote = children(executor)[0]
    result: dict[str, float] = {}
    for name, pid in (("executor", executor), ("api", api), ("zygote", zygote)):
        sizes = rollup(pid)
        result[f"{name} rss"], result[f"{name} pss"] = sizes["rss"], sizes["pss"]
    parked = _parked(zygote)
    result["parked sandboxes"] = len(parked)
    pss = sum(rollup(pid)["pss"] for pids in parked for pid in pids)
    result["parked sandbox pss"] = pss / max(1, len(parked))
    before, sandboxes_before = total_pss(executor), len(children(zygote))
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(sleeping(socket_path)) for _ in range(count)]
        pause(SETTLE_SECONDS)
        more = len(children(zygote)) - sandboxes_before
        result["sandboxes added"] = more
        result["one more sandbox pss"] = (total_pss(executor) - before) / max(1, more)
        result["one more sandbox cgroup"] = sum(map(charged_kib, jobs)) / len(jobs)
    pause(SETTLE_SECONDS)
    return result


def growth(api: int, port: int, counts: tuple[int, ...]) -> dict[str, float]:
    """Measure the api's KiB after a number of small jobs, and after as many more; it keeps none of them."""
    result: dict[str, float] = {}
    done = 0
    for count in counts:
        done += sum(at_once(functools.partial(_jobs, port, count // CLIENTS), CLIENTS))
        pause(SETTLE_SECONDS)
        result[f"api rss after {done} jobs"] = rollup(api)["rss"]
    return result


def _jobs(port: int, count: int) -> Callable[[], int]:
    client = HttpClient(port, PROGRAMS[1])

    def work() -> int:
        for _ in range(count):
            job_id = client.submit()
            client.end(job_id)
            client.delete(job_id)
        return count

    return work
