"""What compiling a job's program took, apart from running it."""

import time

from sandrun_executor.cgroups.probe import Cgroup


class Compilation:
    """The first of a job's two steps, if it has one: what it took by the clock and of the processors."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup
        self._began_at = 0.0
        self._used_before = 0.0
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    def begin(self) -> None:
        """The compiler is about to run. Raises CgroupError."""
        self._began_at = time.monotonic()
        self._used_before = self._cgroup.cpu_seconds()

    def end(self, now: float) -> None:
        """It has ended, or been ended; only the first call counts. Raises CgroupError."""
        if self._began_at:
            self.seconds = now - self._began_at
            self.cpu_seconds = self._cgroup.cpu_seconds() - self._used_before
            self._began_at = 0.0
