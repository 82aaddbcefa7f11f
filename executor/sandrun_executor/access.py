"""Access control of the executor's socket, and the socket itself."""

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

_LISTEN_FD = 3  # sd_listen_fds(3)


class AccessDenied(Exception):
    """The peer's uid is not on the list."""


@dataclass(frozen=True)
class Access:
    """The user ids whose processes may connect."""

    uids: frozenset[int]

    @classmethod
    def for_user(cls, name: str) -> "Access":
        """Root and the named user. Raises KeyError when there is no such user."""
        return cls(frozenset({0, pwd.getpwnam(name).pw_uid}))

    def check(self, uid: int) -> None:
        """Raise AccessDenied unless the peer's uid, which the kernel reports (SO_PEERCRED), may connect."""
        if uid not in self.uids:
            raise AccessDenied(f"uid {uid} is not allowed")


def is_passed() -> bool:
    """Whether systemd passed the socket, and so keeps it after we exit (sd_listen_fds(3))."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1"


def listen(path: Path, user: str, backlog: int) -> socket.socket:
    """Listen on systemd's socket if it passed one, else on a new one at path (mode 0660, group of user).

    Raises OSError. A stale socket of a predecessor is replaced; the caller holds the instance's lock.
    """
    if is_passed():
        os.set_inheritable(_LISTEN_FD, False)
        listener = socket.socket(fileno=_LISTEN_FD)
        listener.listen(backlog)  # repeated, to make us the peer (SO_PEERCRED in unix(7))
        return listener
    group = pwd.getpwnam(user).pw_gid
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    # The umask sets the mode before bind, because a chmod afterwards would leave the wrong mode for a moment.
    # The group is changed afterwards, which can only admit more users; doing it before by setegid would make
    # the kernel forget PR_SET_PDEATHSIG.
    mask = os.umask(0o117)
    try:
        listener.bind(str(path))
        os.chown(path, -1, group, follow_symlinks=False)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(backlog)
    return listener
