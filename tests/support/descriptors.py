"""A process that runs out of descriptors, and what it has open."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


def open_now() -> list[int]:
    """The numbers of all descriptors."""
    return sorted(
        int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
    )


@contextmanager
def only(count: int) -> Iterator[None]:
    """Let this process open so many more descriptors, then get EMFILE (setrlimit(2))."""
    used = set(open_now())
    free = (number for number in range(max(used) + count + 2) if number not in used)
    limit = [number for number, _ in zip(free, range(count + 1), strict=False)][-1]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
