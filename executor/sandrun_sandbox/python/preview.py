"""A root like a job's, in which the zygote of an environment imports the modules that jobs will want.

What is imported there sees the paths, the variables and the writable folders that a job has.
"""

from __future__ import annotations

import os

from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox import root

# As nobody; the real privileges come back afterwards.
UID = 65534
PROGRAM = root.WORK + "/zygote.pyc"
_SIZES = root.Sizes(64 << 20, 4096, 64 << 20, "")


def enter(links: list[str], program: bytes) -> int:
    """Mount it at /new, make it this process' root, with the zygote's program at PROGRAM. Raises OSError.

    Returns a descriptor of the way back.
    """
    way_back = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(way_back, True)
    root.mount_files(UID, _SIZES, links)
    root.mount_devices(_SIZES)
    root.mount_proc()
    os.chroot("/new")
    os.chdir("/")
    with open(PROGRAM, "wb") as file:
        file.write(program)
    return way_back


def leave(way_back: int) -> None:
    """Be root in the image again and detach the preview; what was mapped from it stays. Raises OSError."""
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
    os.fchdir(way_back)
    os.chroot(".")
    os.close(way_back)
    linux.umount2("/new")
    linux.umount2("/stage")
