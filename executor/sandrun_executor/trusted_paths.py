"""Programs that the daemon has run without privileges: uv inside sandboxes, what asks NVML as the api's user.

They are no part of root's own virtual environment but of the api's, which an installation has beside it; a
checkout has one environment for both.
"""

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Collection
from pathlib import Path

_API = "api"  # as deploy/release.sh names it


class HelperError(Exception):
    """Code that the daemon is to run could be changed by the user it trusts least; the text says which."""


def venv(own: Path | None = None) -> Path:
    """The virtual environment that holds the helpers, beside ours (own) or ours itself."""
    own = Path(sys.prefix) if own is None else own
    sibling = own.with_name(_API)
    return sibling if (sibling / "bin" / "python").is_file() else own


def python() -> str:
    """The interpreter with which a helper runs as a process of its own."""
    found = venv()
    return sys.executable if found == Path(sys.prefix) else str(found / "bin" / "python")


def find_uv() -> str:
    """The server's own uv, else the system's; "" when there is none."""
    own = venv() / "bin" / "uv"
    return str(own) if own.is_file() else shutil.which("uv", path="/usr/local/bin:/usr/bin") or ""


def changeable(path: Path, uid: int, groups: Collection[int]) -> Path | None:
    """The first of a path and the folders above it that a user may change, None if there is none."""
    real = path.resolve()
    for part in (path, *path.parents, real, *real.parents):
        state = part.stat()
        modes = stat.S_IWOTH | (stat.S_IWGRP if state.st_gid in groups else 0)
        # In a folder like /tmp nobody takes away what is another's (inode(7), the sticky bit).
        if state.st_uid == uid or (state.st_mode & modes and not state.st_mode & stat.S_ISVTX):
            return part
    return None


def check(user: str) -> None:
    """See that the api's user can change neither our code nor a helper's. Raises HelperError, KeyError."""
    entry = pwd.getpwnam(user)
    if entry.pw_uid == 0:
        return
    groups = os.getgrouplist(user, entry.pw_gid)
    for path in filter(None, (sys.executable, str(Path(__file__).parent), python(), find_uv())):
        found = changeable(Path(path).absolute(), entry.pw_uid, groups)
        if found is not None:
            raise HelperError(
                f"the user {user} can change {found}, where root finds {path}: let only root write there"
            )
