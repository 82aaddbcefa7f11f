"""How a process of the sandbox gives up everything a job must not have."""

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
    # The kernel made us non-dumpable with the change of uid, and the files of /proc/self root's.
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
    """Set what is the same for every job; processes inherit it (setrlimit(2))."""
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
    """Let jobs choose how far a stack may grow, as on every machine: its memory is the cgroup's to limit.

    The hard limit stays what was inherited where it cannot be raised (CAP_SYS_RESOURCE, setrlimit(2)).
    """
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if hard != resource.RLIM_INFINITY:
        try:
            resource.setrlimit(resource.RLIMIT_STACK, (min(STACK, hard), resource.RLIM_INFINITY))
            return
        except (ValueError, OSError):
            pass  # sandrun doctor says so
    resource.setrlimit(resource.RLIMIT_STACK, (within(STACK, hard), hard))


def _oom_score() -> None:
    """Offer the job to the out-of-memory killer before PID 1 (proc(5), oom_score_adj)."""
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    try:
        os.write(fd, b"1000")
    finally:
        os.close(fd)


def lower(kind: int, value: int) -> None:
    """Set both values of an rlimit, at most the one inherited (setrlimit(2))."""
    value = within(value, resource.getrlimit(kind)[1])
    resource.setrlimit(kind, (value, value))


def within(value: int, hard: int) -> int:
    """The value, or the hard limit if that is less."""
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


class Confinement:
    """Drops every privilege of a sandbox process."""

    def __init__(self, uid: int, ruleset: int, seccomp: linux.SeccompProgram) -> None:
        self.uid = uid
        self.ruleset = ruleset
        self.seccomp = seccomp

    def enter(self) -> None:
        """Become the job's user with nothing but the job's folders. Raises StepError."""
        steps: tuple[Step, ...] = (
            ("session", os.setsid),
            ("oom_score", _oom_score),
            ("identity", lambda: _identity(self.uid)),
            ("user_namespace", lambda: _user_namespace(self.uid)),
            ("capabilities", _capabilities),
        )
        # Behind the filter no thread can name itself, and behind Landlock this file cannot be opened.
        comm = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
        run_steps((*steps, *self._last_steps()))
        os.write(comm, linux.own_name())
        os.close(comm)

    def enter_as_collector(self) -> None:
        """The same, less what only a program could make use of: a collector runs none. Raises StepError.

        Its capabilities go with the change of uid, and no_new_privs keeps them away (capabilities(7)).
        """
        run_steps((("identity", lambda: _identity(self.uid)), *self._last_steps()))

    def _last_steps(self) -> tuple[Step, ...]:
        return (
            ("no_new_privs", lambda: linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)),
            ("landlock", lambda: landlock.restrict(self.ruleset)),
            ("seccomp", self.seccomp.install),
        )
