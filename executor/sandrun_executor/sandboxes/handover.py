"""What the executor hands to a sandbox besides the client's files."""

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from sandrun_shared.jobs import Limits
from sandrun_shared.protocol import Event, Execute

Program = dict[str, object]  # what a language's table entry says, for the channel


class Sink(Protocol):
    """Where a job's events go."""

    def send(self, event: Event, fds: tuple[int, ...] = ()) -> bool:
        """Pass one event on; False when there is no room for more."""


@dataclass(frozen=True)
class Packages:
    """What a sandbox gets of packages: mounts by descriptor, variables, and the CPU time they took before.

    tools is None for a finished layer; else the first mount is a folder to install to, and the others are
    files with these names. warm: whether they go with an interpreter that has started.
    """

    mounts: list[int]
    environment: dict[str, str]
    tools: tuple[str, ...] | None = None
    cpu_seconds: float = 0.0
    warm: bool = True


NO_PACKAGES = Packages([], {})


def held(undo: ExitStack, fd: int) -> int:
    """The descriptor, which the stack closes."""
    undo.callback(os.close, fd)
    return fd


def threads_of(limits: Limits) -> int:
    """How many threads a library may start for one computation: the job's share of the processors."""
    return min(math.ceil(limits.cpu_cores), os.cpu_count() or 1)


def orders_for(request: Execute, program: Program, packages: Packages) -> dict[str, object]:
    """The message to the process that becomes the job: numbers and names of ours only."""
    limits = request.limits
    return {
        **program,
        "packages": packages.environment,
        "upload": request.upload.value,
        "warm": request.warm and packages.warm and request.interpreter == "python3" and request.gpu is None,
        "buffered": request.buffered,
        "threads": threads_of(limits),
        "disk_bytes": limits.disk_bytes,
        "open_files": limits.open_files,
        "processes": limits.processes,
        "stack_bytes": limits.memory_bytes if program["native"] else 0,
    }
