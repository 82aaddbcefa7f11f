"""What root says to its unprivileged helpers and what they answer: all of them that root imports."""

import msgspec

from sandrun_shared.protocol import Gpu


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a package proxy lets through; as root it becomes uid; seccomp is its filter of calls."""

    hosts: tuple[str, ...]
    max_bytes: int
    uid: int
    seccomp: bytes
    networks: tuple[str, ...] = ()
    credentials: dict[str, tuple[str, str]] = {}
    ca: str = ""


class Probed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The GPUs that jobs may have, each with the minor number of its node, and why others may not."""

    gpus: tuple[tuple[Gpu, int], ...] = ()
    problem: str = ""


# Exit codes of the installer (install.py), which runs as a job and can import nothing of ours.
FAILED, REFUSED, NO_SPACE, UNREACHABLE = 20, 21, 22, 23
