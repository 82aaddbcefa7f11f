"""Wipe memory: the allocator overwrites what is freed, and with it every byte that a client sent.

CPython's allocator leaves the content of freed objects in memory until it is reused. glibc's can overwrite
it, if configured before the process starts (GLIBC_TUNABLES, "Memory Allocation Tunables" in the glibc
manual); its cache of freed chunks, which is exempt, is switched off. Therefore the process executes itself
again with these settings.
"""

import os
import sys
from collections.abc import Mapping

ALLOCATOR = {
    "PYTHONMALLOC": "malloc",  # allocate all of Python's memory from glibc
    "GLIBC_TUNABLES": "glibc.malloc.perturb=255:glibc.malloc.tcache_count=0",
}
_MARK = "SANDRUN_WIPES"  # not a setting, whose names have two underscores


def variables(environ: Mapping[str, str]) -> dict[str, str] | None:
    """Build the variables with which freed memory is overwritten; None if this process has them."""
    return None if environ.get(_MARK) else {**environ, **ALLOCATOR, _MARK: "1"}


def restart() -> None:
    """Become a process that overwrites what it frees; returns only in such a process. Raises OSError."""
    environ = variables(os.environ)
    if environ is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606 - ourselves
