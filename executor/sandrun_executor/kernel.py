"""Features and settings of this machine's kernel, for the daemon and for its checks."""

import os
import re
from pathlib import Path

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
_NOSWAP = (6, 4)  # tmpfs with noswap (tmpfs(5))


def version(release: str) -> tuple[int, int]:
    """Parse a release: (5, 14) of "5.14.0-rc1+"; (0, 0) if it has another form."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def has_noswap(release: str) -> bool:
    """Whether files in a tmpfs can be kept out of swap."""
    return version(release) >= _NOSWAP


def noswap_option() -> str:
    """The tmpfs option that keeps a job's files out of swap, "" if the kernel lacks it."""
    return ",noswap" if has_noswap(os.uname().release) else ""


def pipes_cores(pattern: str) -> bool:
    """Whether core dumps go to a program (core(5), core_pattern)."""
    return pattern.startswith("|")
