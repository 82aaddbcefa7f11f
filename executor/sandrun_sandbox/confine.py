"""Confinement: how a process of the sandbox drops everything that a job must not have."""

from __future__ import annotations

import os
import resource

from sandrun_sandbox import landlock
from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.steps import run_steps

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from sandrun_sandbox.steps import Step

# The one user id that every job sees, whichever slot it runs in.
INNER_ID = 1000
STACK = 8 << 20  # bytes: the kernel's own default of RLIMIT_STACK


def _identity(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # The change of uid made us non-dumpable, so the files of /proc/self became owned by root and cannot be
    # written. Make us dumpable again.
    linux.prctl(linux.PR_SET_DUMPABLE, 1)


def _user_namespace(uid: int) -> None:
    linux.unshare(linux.CLONE_NEWUSER)
    lines = (("setgroups", "deny"), ("gid_map", f"{INNER_ID} {uid} 1"), ("uid_map", f"{INNER_ID} {uid} 1"))
    for name, line in lines:
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)


def _capabilities() -> None:
    linux.prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_CLEAR_ALL)
    linux.drop_bounding_set()
    linux.prctl(linux.PR_SET_SECUREBITS, linux.SECUREBITS_LOCKED)
    linux.clear_capabilities()


def lower_rlimits(core_bytes: int) -> None:
    """Set the limits that are the same for every job; processes inherit them (setrlimit(2))."""
    for kind, value in (
        (resource.RLIMIT_CORE, core_bytes),
        (resource.RLIMIT_MEMLOCK, 8 << 20),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 1024),
        (resource.RLIMIT_RTPRIO, 0),
        (resource.RLIMIT_NICE, 0),
    ):
        lower(kind, value)
    _open_stack()


def _open_stack() -> None:
    """Let jobs choose their stack size, as on every machine, since the cgroup bounds its memory.

    Without CAP_SYS_RESOURCE the inherited hard limit stays (setrlimit(2)).
    """
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if hard != resource.RLIM_INFINITY:
        try:
            resource.setrlimit(resource.RLIMIT_STACK, (min(STACK, hard), resource.RLIM_INFINITY))
            return
        except (ValueError, OSError):
            pass  # sandrun doctor reports this
    resource.setrlimit(resource.RLIMIT_STACK, (within(STACK, hard), hard))


def _oom_score() -> None:
    """Offer the job to the out-of-memory killer before PID 1 (proc(5), oom_score_adj)."""
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    try:
        os.write(fd, b"1000")
    finally:
        os.close(fd)


def lower(kind: int, value: int) -> None:
    """Set both values of an rlimit, at most to the inherited hard limit (setrlimit(2))."""
    value = within(value, resource.getrlimit(kind)[1])
    resource.setrlimit(kind, (value, value))


def within(value: int, hard: int) -> int:
    """Return the smaller of the value and the hard limit."""
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


class Confinement:
    """Drops every privilege of a sandbox process."""

    def __init__(self, uid: int, ruleset: int, seccomp: linux.SeccompProgram) -> None:
        self.uid = uid
        self.ruleset = ruleset
        self.seccomp = seccomp

    def enter(self) -> None:
        """Become the job's user, confined to the job's folders. Raises StepError."""
        steps: tuple[Step, ...] = (
            ("session", os.setsid),
            ("oom_score", _oom_score),
            ("identity", lambda: _identity(self.uid)),
            ("user_namespace", lambda: _user_namespace(self.uid)),
            ("capabilities", _capabilities),
        )
        # Must come first: the filter ignores naming a thread, and Landlock denies opening this file.
        comm = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
        run_steps((*steps, *self._last_steps()))
        os.write(comm, linux.own_name())
        os.close(comm)

    def enter_as_collector(self) -> None:
        """Confine a collector: the same without the steps that only matter to a program. Raises StepError.

        The change of uid drops its capabilities, and no_new_privs keeps it from regaining any
        (capabilities(7)).
        """
        run_steps((("identity", lambda: _identity(self.uid)), *self._last_steps()))

    def _last_steps(self) -> tuple[Step, ...]:
        return (
            ("no_new_privs", lambda: linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)),
            ("landlock", lambda: landlock.restrict(self.ruleset)),
            ("seccomp", self.seccomp.install),
        )
