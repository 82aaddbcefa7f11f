"""How many descriptors a daemon may have open."""

import resource
from contextlib import suppress


def allow_many() -> None:
    """Raise this process's soft limit to the hard one (RLIMIT_NOFILE, setrlimit(2)).

    The usual 1024 exists for select(2); here every job and every connection needs some.
    """
    with suppress(OSError, ValueError):  # a unit may set both limits and forbid the call
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
