"""Let a process run out of descriptors, and list those it has open."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


def open_now() -> list[int]:
    """List the numbers of all descriptors."""
    return sorted(
        int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
    )


@contextmanager
def only(count: int) -> Iterator[None]:
    """Limit how many more descriptors this process can open before EMFILE (setrlimit(2))."""
    used = set(open_now())
    free = (number for number in range(max(used) + count + 2) if number not in used)
    limit = [number for number, _ in zip(free, range(count + 1), strict=False)][-1]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
