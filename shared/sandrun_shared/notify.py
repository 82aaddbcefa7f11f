"""Report our state to the service manager, and share descriptors with it (sd_notify(3), sd_listen_fds(3))."""

import os
import socket
from collections.abc import Mapping, Sequence

_FIRST_FD = 3


def notify(state: str, fds: Sequence[int] = ()) -> None:
    """Send one message of lines, with descriptors for it to keep; does nothing without NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(address)  # socket.send_fds() ignores its address argument
            socket.send_fds(sock, [state.encode()], list(fds))
        except OSError:
            return  # the service manager is gone


def is_service(environ: Mapping[str, str]) -> bool:
    """Whether a service manager started this process, not a person: systemd says so (systemd.exec(5)).

    INVOCATION_ID says nothing: a desktop's terminals inherit it.
    """
    if environ.get("NOTIFY_SOCKET") or environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
        return True
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def passed_fds() -> list[int]:
    """Return the descriptors that it passed to this process, and set close-on-exec on them."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return []
    fds = list(range(_FIRST_FD, _FIRST_FD + int(count)))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds


def watchdog_seconds() -> float | None:
    """Return the seconds between two WATCHDOG=1; None without a watchdog (sd_watchdog_enabled(3))."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if microseconds.isdigit() and for_us else None
