"""What root says to its unprivileged helpers and what they answer: all of them that root imports."""

import msgspec

from sandrun_shared.protocol import Gpu


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a package proxy lets through; as root it becomes uid; seccomp is its filter of system calls.

    With it come the listening socket and, where registries want credentials, two files: certificates (PEM)
    and a netrc(5). Instead of the latter, credential may name one of the proxy's systemd credentials.
    """

    hosts: tuple[str, ...]
    max_bytes: int
    uid: int
    seccomp: bytes
    networks: tuple[str, ...] = ()
    credential: str = ""


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The proxy serves, with credentials for these of its hosts; or problem says why it does not."""

    hosts: tuple[str, ...] = ()
    problem: str = ""


class Probed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The GPUs that jobs may have, each with the minor number of its node, and why others may not."""

    gpus: tuple[tuple[Gpu, int], ...] = ()
    problem: str = ""


# Exit codes of the installer (install.py), which runs as a job and can import nothing of ours.
FAILED, REFUSED, NO_SPACE, UNREACHABLE = 20, 21, 22, 23
