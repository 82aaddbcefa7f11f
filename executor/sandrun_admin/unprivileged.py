"""Lets code of packages write to a folder of root's without being root."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

MOUNTED = Path("/mnt")  # where such code finds the folder
_ENTER = 'mount --bind -- "$1" "$0" && shift && exec "$@"'
_NAMESPACES = ("unshare", "--mount", "--pid", "--ipc", "--mount-proc", "--fork", "--kill-child", "--")


def command(folder: Path, uid: int, words: list[str]) -> list[str]:
    """What runs words as another user without privileges, with the folder at MOUNTED, until all of it ended.

    The folder is mounted because the user may not enter those above it. Needs root: unshare(1), setpriv(1).
    """
    user = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs")
    privileges = ("--inh-caps=-all", "--bounding-set=-all", "--")
    return [*_NAMESPACES, "sh", "-c", _ENTER, str(MOUNTED), str(folder), *user, *privileges, *words]


@contextmanager
def lent(folders: Collection[Path], uid: int) -> Iterator[None]:
    """Let a user make files in folders and in every folder below; then all of it is root's again.

    The files that are there stay root's. No process of the user's may be left at the end.
    """
    for folder in folders:
        for top, _, _ in os.walk(folder):
            os.chown(top, uid, uid, follow_symlinks=False)
    try:
        yield
    finally:
        for folder in folders:
            for top, names, files in os.walk(folder):
                for path in (top, *(os.path.join(top, name) for name in (*names, *files))):
                    if os.lstat(path).st_uid == uid:
                        os.chown(path, 0, 0, follow_symlinks=False)
