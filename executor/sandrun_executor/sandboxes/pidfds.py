"""What the kernel says of a pidfd (pidfd_open(2))."""

import signal


def pid_of(pidfd: int) -> int:
    """The process behind a pidfd, in our namespace; -1 when it is dead (pidfd_open(2))."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == "Pid":
                return int(value)
    return -1


def is_pidfd(fd: int) -> bool:
    """Whether a descriptor stands for a process, dead or alive (pidfd_send_signal(2))."""
    try:
        signal.pidfd_send_signal(fd, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return True
