"""Queries about a pidfd (pidfd_open(2))."""

import signal


def pid_of(pidfd: int) -> int:
    """Look up the pid behind a pidfd, in our namespace; -1 if the process is dead (pidfd_open(2))."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == "Pid":
                return int(value)
    return -1


def is_pidfd(fd: int) -> bool:
    """Whether a descriptor is a pidfd, of a live or dead process (pidfd_send_signal(2))."""
    try:
        signal.pidfd_send_signal(fd, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return True
