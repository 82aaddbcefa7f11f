"""Paths of the programs that the daemon runs without privileges: uv in sandboxes, helpers as the api's user.

They belong to the api's venv, not to root's. An installation has both in one folder; a checkout has one venv
for both.
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
    """The api's user could change code that the daemon runs; the text says which."""


def venv(own: Path | None = None) -> Path:
    """Find the venv that holds the helpers: the api's next to ours (own), or ours."""
    own = Path(sys.prefix) if own is None else own
    sibling = own.with_name(_API)
    return sibling if (sibling / "bin" / "python").is_file() else own


def python() -> str:
    """Find the interpreter that runs helpers."""
    found = venv()
    return sys.executable if found == Path(sys.prefix) else str(found / "bin" / "python")


def find_uv() -> str:
    """Find uv: the server's own, else the system's, else ""."""
    own = venv() / "bin" / "uv"
    return str(own) if own.is_file() else shutil.which("uv", path="/usr/local/bin:/usr/bin") or ""


def changeable(path: Path, uid: int, groups: Collection[int]) -> Path | None:
    """Find the first of a path and the folders above it that a user may change; None if all are safe."""
    real = path.resolve()
    for part in (path, *path.parents, real, *real.parents):
        state = part.stat()
        modes = stat.S_IWOTH | (stat.S_IWGRP if state.st_gid in groups else 0)
        # In a folder like /tmp nobody may replace another user's file (inode(7), the sticky bit).
        if state.st_uid == uid or (state.st_mode & modes and not state.st_mode & stat.S_ISVTX):
            return part
    return None


def check(user: str) -> None:
    """Check that the api's user can change neither our code nor a helper's. Raises HelperError, KeyError."""
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
