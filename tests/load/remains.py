"""What a running service has of the machine: to be the same before and after a load."""

import os
import re
from dataclasses import dataclass

import httpx

from support import machine
from support.service import Service

SETTLE_SECONDS = 60.0
SHARED_SLACK = 64 << 20  # bytes that other programs of the machine may come to use
DAEMONS = ("sandrun_api", "sandrun_executor")
AT_REST = 5  # the api, the executor, its zygote, and the two processes of the one parked sandbox
GAUGES = ("sandrun_queue_length", "sandrun_running_jobs", "sandrun_held_bytes")


@dataclass(frozen=True)
class Remains:
    """Counts; `held` is what the api says of itself: jobs waiting, jobs running, bytes."""

    processes: int
    job_processes: int
    cgroups: int
    network_namespaces: int
    descriptors: tuple[int, ...]  # of the api, of the executor
    memfd_bytes: int
    mounts: tuple[str, ...]
    held: tuple[float, ...]

    @classmethod
    def of(cls, service: Service) -> "Remains":
        """What there is now."""
        pids = machine.descendants(service.pid)
        return cls(
            len(pids),
            len(machine.of_jobs(service)),
            len(machine.cgroups(service)),
            len(machine.network_namespaces(pids)),
            tuple(machine.descriptors(service.daemon(name)) for name in DAEMONS),
            sum(_memfd_bytes(pid) for pid in pids),
            tuple(machine.mounts()),
            tuple(metric(service, name) for name in GAUGES),
        )

    def is_more_than(self, before: "Remains") -> bool:
        """Whether anything is there that was not."""
        counts = zip(_counts(self), _counts(before), strict=True)
        return any(now > then for now, then in counts) or bool(set(self.mounts) - set(before.mounts))


def settled(service: Service) -> Remains:
    """What there is once the executor has its parked sandboxes and nothing else. Raises AssertionError."""
    seen: list[Remains] = []

    def same_twice() -> bool:
        seen.append(Remains.of(service))
        return seen[-1].processes == AT_REST and seen[-2:-1] == seen[-1:]

    assert machine.eventually(same_twice, SETTLE_SECONDS), f"the service does not come to rest: {seen[-2:]}"
    return seen[-1]


def assert_nothing_more(service: Service, before: Remains, shared_before: int) -> Remains:
    """Compare with before, in time; what there is now. Raises AssertionError."""
    machine.eventually(lambda: not Remains.of(service).is_more_than(before), SETTLE_SECONDS)
    after = Remains.of(service)
    assert not after.is_more_than(before), f"before: {before}\nafter:  {after}"
    assert machine.eventually(
        lambda: machine.shared_memory() <= shared_before + SHARED_SLACK, SETTLE_SECONDS
    ), "tmpfs was not given back"
    return after


def metric(service: Service, name: str) -> float:
    """The sum of a metric over its labels."""
    answer = service.client.get("/metrics")
    assert answer.status_code == httpx.codes.OK
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", answer.text, re.M))


def _counts(remains: Remains) -> list[float]:
    return [
        remains.processes,
        remains.job_processes,
        remains.cgroups,
        remains.network_namespaces,
        *remains.descriptors,
        remains.memfd_bytes,
        *remains.held,
    ]


def _memfd_bytes(pid: int) -> int:
    """Bytes of the memfds that a process has open."""
    size = 0
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{fd}"
            if os.readlink(path).startswith("/memfd:"):
                size += os.stat(path).st_size
    except OSError:
        return size
    return size
