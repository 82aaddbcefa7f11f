"""Messages between root and its unprivileged helpers; the only module of theirs that root imports."""

import msgspec

from sandrun_shared.protocol import Gpu


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules of a package proxy; uid is whom it becomes if it runs as root; seccomp is its filter.

    Descriptors: the listening socket and, if registries need credentials, two files: certificates (PEM) and a
    netrc(5). Instead of the latter, credential may name one of the proxy's systemd credentials.
    """

    hosts: tuple[str, ...]
    max_bytes: int
    uid: int
    seccomp: bytes
    networks: tuple[str, ...] = ()
    credential: str = ""


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The proxy serves, with credentials for these hosts; or problem says why it does not."""

    hosts: tuple[str, ...] = ()
    problem: str = ""


class Probed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The usable GPUs, each with the minor number of its node, and the problems of the others."""

    gpus: tuple[tuple[Gpu, int], ...] = ()
    problem: str = ""


# Exit codes of the installer (install.py), which runs as a job and can import nothing of ours.
FAILED, REFUSED, NO_SPACE, UNREACHABLE = 20, 21, 22, 23
