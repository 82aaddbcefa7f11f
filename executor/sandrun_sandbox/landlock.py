"""The Landlock rules of a job (Documentation/userspace-api/landlock.rst)."""

from __future__ import annotations

import os

from sandrun_sandbox import linux_unsafe as linux

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SCOPE_ALL = 0b11  # abstract Unix sockets and signals, ABI 6
# LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF, _LOG_SUBDOMAINS_OFF (ABI 7): keep refused paths out of the audit
# log.
_SILENT = 0b101

READ = _EXECUTE | _READ_FILE | _READ_DIR
# The rights of a job by path; rights that an older kernel does not know are masked off.
RULES = (
    ("/", _READ_DIR),
    ("/usr", READ),
    ("/etc", _READ_FILE | _READ_DIR),
    ("/proc", _READ_FILE | _READ_DIR),
    ("/dev", _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV),
)


def _all_rights(abi: int) -> int:
    return {1: _REFER, 2: _TRUNCATE, 3: _IOCTL_DEV, 4: _IOCTL_DEV}.get(abi, _IOCTL_DEV << 1) - 1


def make_ruleset(writable: tuple[str, ...], readable: tuple[str, ...] = ()) -> int:
    """Make a ruleset that allows everything beneath the writable folders. Raises OSError.

    readable: additional folders from which a job may read and execute. Returns a descriptor, -1 on a kernel
    without Landlock.
    """
    abi = linux.landlock_abi()
    if abi == 0:
        return -1
    handled = _all_rights(abi)
    ruleset = linux.landlock_create_ruleset(handled, _SCOPE_ALL if abi >= 6 else 0, abi)
    more = (*((folder, READ) for folder in readable), *((folder, handled) for folder in writable))
    for path, rights in (*RULES, *more):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            linux.landlock_add_path(ruleset, fd, rights & handled)
        finally:
            os.close(fd)
    return ruleset


def restrict(ruleset: int) -> None:
    """Enforce the ruleset on this process for good. Raises OSError."""
    if ruleset >= 0:
        linux.landlock_restrict_self(ruleset, _SILENT if linux.landlock_abi() >= 7 else 0)
