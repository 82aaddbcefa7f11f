"""What root says to its unprivileged helpers and what they answer: all of them that root imports."""

import msgspec


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a proxy is to let through; as root it becomes uid; seccomp is its filter of system calls.

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
