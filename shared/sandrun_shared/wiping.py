"""Memory that is freed is overwritten: the allocator does it, for every byte a client sent.

CPython's own allocator leaves the content of freed objects where it was, for as long as nobody needs the
place. glibc's overwrites what is freed when it is told so, before the process starts
(GLIBC_TUNABLES, "Memory Allocation Tunables" in the glibc manual); its cache of freed chunks, which it
leaves out, is switched off. So the process starts itself again with these settings.
"""

import os
import sys
from collections.abc import Mapping

ALLOCATOR = {
    "PYTHONMALLOC": "malloc",  # all of Python's memory comes from glibc
    "GLIBC_TUNABLES": "glibc.malloc.perturb=255:glibc.malloc.tcache_count=0",
}
_MARK = "SANDRUN_WIPES"  # no setting: those have two underscores


def variables(environ: Mapping[str, str]) -> dict[str, str] | None:
    """The environment in which freed memory is overwritten; None if it is this one."""
    return None if environ.get(_MARK) else {**environ, **ALLOCATOR, _MARK: "1"}


def restart() -> None:
    """Become a process that overwrites what it frees; returns only in one. Raises OSError."""
    environ = variables(os.environ)
    if environ is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606 - ourselves
