"""Opens and makes files beneath a directory, whatever a stranger has put in the way.

Every path is resolved by the kernel with openat2(2): no link is followed, nothing outside is reached.
"""

from __future__ import annotations

import errno
import os

from sandrun_sandbox import linux_unsafe

MAX_PATH_BYTES = 4095  # PATH_MAX with its NUL
MAX_NAME_BYTES = 255
MAX_DEPTH = 64

_RESOLVE = (
    linux_unsafe.RESOLVE_BENEATH | linux_unsafe.RESOLVE_NO_SYMLINKS | linux_unsafe.RESOLVE_NO_MAGICLINKS
)
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


def open_beneath(dir_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """A new descriptor of `path`, close-on-exec. Raises OSError: EXDEV or ELOOP for an escape or a link."""
    return linux_unsafe.openat2(dir_fd, path, flags | os.O_CLOEXEC, mode, _RESOLVE)


def open_folder(dir_fd: int, path: bytes) -> int:
    """A descriptor (O_PATH) of the folder `path`; an empty path is dir_fd itself. Raises OSError."""
    return open_beneath(dir_fd, path or b".", _FOLDER)


def make_folders(dir_fd: int, path: bytes) -> int:
    """Makes the folder `path` and those above it, and opens it (O_PATH). Raises OSError."""
    names = path.split(b"/") if path else []
    if len(names) > MAX_DEPTH:
        raise OSError(errno.ENAMETOOLONG, "too many folders within each other")
    here = open_folder(dir_fd, b"")
    try:
        for name in names:
            try:  # noqa: SIM105  # contextlib would be one more module in every job
                os.mkdir(name, 0o755, dir_fd=here)
            except FileExistsError:
                pass  # whether it is a folder, the open below says
            below = open_folder(here, name)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def make_parents(dir_fd: int, path: bytes) -> None:
    """Makes every folder that `path` lies in. Raises OSError as make_folders does."""
    os.close(make_folders(dir_fd, os.path.dirname(path)))
