"""Open and create files beneath a directory that an attacker may have filled.

The kernel resolves every path with openat2(2): it follows no link and never leaves the directory.
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
    """Open `path` close-on-exec. Raises OSError: EXDEV for an escape, ELOOP for a link."""
    return linux_unsafe.openat2(dir_fd, path, flags | os.O_CLOEXEC, mode, _RESOLVE)


def open_folder(dir_fd: int, path: bytes) -> int:
    """Open the folder `path` with O_PATH; an empty path is dir_fd itself. Raises OSError."""
    return open_beneath(dir_fd, path or b".", _FOLDER)


def make_folders(dir_fd: int, path: bytes) -> int:
    """Make the folder `path` and its parents, and open it with O_PATH. Raises OSError."""
    names = path.split(b"/") if path else []
    if len(names) > MAX_DEPTH:
        raise OSError(errno.ENAMETOOLONG, "too many folders within each other")
    here = open_folder(dir_fd, b"")
    try:
        for name in names:
            try:  # noqa: SIM105  # contextlib would be an additional module in every job
                os.mkdir(name, 0o755, dir_fd=here)
            except FileExistsError:
                pass  # the open below finds out whether it is a folder
            below = open_folder(here, name)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def make_parents(dir_fd: int, path: bytes) -> None:
    """Make every parent of `path`. Raises OSError as make_folders does."""
    os.close(make_folders(dir_fd, os.path.dirname(path)))
