"""A root like a job's, in which the zygote of an environment imports modules ahead of jobs.

Modules imported there see the paths, variables and writable folders of a job.
"""

from __future__ import annotations

import os

from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox import root
from sandrun_sandbox.layout import PREVIEW_PROGRAM, PREVIEW_UID
from sandrun_sandbox.messages import TmpfsLimits

_LIMITS = TmpfsLimits(64 << 20, 4096, 64 << 20)


def enter(links: tuple[str, ...], program: bytes) -> int:
    """Make the preview this process's root, with the program at PREVIEW_PROGRAM. Raises OSError.

    Returns a descriptor by which `leave` returns.
    """
    way_back = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(way_back, True)
    root.mount_files(PREVIEW_UID, _LIMITS, "", links)
    root.mount_devices(_LIMITS, "")
    root.mount_proc()
    os.chroot("/new")
    os.chdir("/")
    with open(PREVIEW_PROGRAM, "wb") as file:
        file.write(program)
    return way_back


def leave(way_back: int) -> None:
    """Become root in the image again and detach the preview; its mappings stay. Raises OSError."""
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
    os.fchdir(way_back)
    os.chroot(".")
    os.close(way_back)
    linux.umount2("/new")
    linux.umount2("/stage")
