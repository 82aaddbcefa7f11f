"""The messages and packages that the executor hands to a sandbox besides the client's files."""

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from sandrun_sandbox.messages import INSTALLING, LAYER, Configure, JobMessage, TmpfsLimits
from sandrun_sandbox.messages import NO_PACKAGES as NONE
from sandrun_shared.jobs import Limits
from sandrun_shared.languages import Language
from sandrun_shared.protocol import Event, Execute


class Sink(Protocol):
    """Receives a job's events."""

    def send(self, event: Event, fds: tuple[int, ...] = ()) -> bool:
        """Send one event; False asks the sender to pause."""


@dataclass(frozen=True)
class Packages:
    """Packages for a sandbox: mounts by descriptor, variables, and the CPU time of the installation.

    tools is None for a finished layer; otherwise the first mount is a folder to install to, and the others
    are files with these names. warm: whether a started interpreter may use them.
    """

    mounts: list[int]
    variables: dict[str, str]
    tools: tuple[str, ...] | None = None
    cpu_seconds: float = 0.0
    warm: bool = True


NO_PACKAGES = Packages([], {})


def held(undo: ExitStack, fd: int) -> int:
    """Have the stack close a descriptor; returns it."""
    undo.callback(os.close, fd)
    return fd


def tmpfs_limits(limits: Limits) -> TmpfsLimits:
    """Derive the sizes of a job's tmpfs folders from its limits."""
    return TmpfsLimits(limits.disk_bytes, limits.inodes, limits.memory_bytes)


def configuration(mounted: TmpfsLimits, limits: Limits, packages: Packages) -> Configure | None:
    """Build the message by which PID 1 adapts the mounted folders to a job; None if they fit."""
    wanted: TmpfsLimits | None = tmpfs_limits(limits)
    if wanted == mounted:
        wanted = None
    kind = NONE
    if packages.mounts:
        kind = LAYER if packages.tools is None else INSTALLING
    elif wanted is None:
        return None
    return Configure(wanted, kind, packages.tools or ())


def threads_of(limits: Limits) -> int:
    """Count the threads that a library may start for one computation: the job's share of the processors."""
    return min(math.ceil(limits.cpu_cores), os.cpu_count() or 1)


def job_message(request: Execute, language: Language, packages: Packages) -> JobMessage:
    """Build the message to the process that becomes the job; it holds only numbers and our own names."""
    limits = request.limits
    fork = request.warm and packages.warm and request.interpreter == "python3" and request.gpu is None
    return JobMessage(
        command=language.command,
        compiler=language.compiler,
        language_variables=language.env,
        package_variables=packages.variables,
        upload=request.upload.value,
        warm=fork,
        buffered=request.buffered,
        threads=threads_of(limits),
        disk_bytes=limits.disk_bytes,
        open_files=limits.open_files,
        processes=limits.processes,
        stack_bytes=limits.memory_bytes if language.is_native else 0,
    )
