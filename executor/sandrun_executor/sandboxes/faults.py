"""Causes for which no sandbox can be made, with a clause for clients and a remedy for the operator."""

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The kernel's internal ENOTSUPP, which no user-space header defines. seccomp(2) returns it when the machine's
# pool for compiled BPF programs is used up (bpf_prog_select_runtime in kernel/bpf/core.c).
ENOTSUPP = 524
_COMM = re.compile(r"[a-z_]{1,15}")
_STATES = {
    "D": "in a system call that no signal ends (state D)",
    "R": "running (state R)",
    "S": "asleep (state S)",
    "Z": "dead, but not reaped (state Z)",
}
NO_SANDBOX = "no sandbox can be made on this server now"


@dataclass(frozen=True)
class Fault:
    """One cause: `public` is a clause for clients; `found` and `remedy` are for the operator."""

    public: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}"

    @property
    def for_clients(self) -> str:
        """The sentence that a client gets."""
        return f"{NO_SANDBOX}: {self.public}"


FILTERS_USED_UP = (
    "the kernel has no room for one more system call filter",
    "the kernel's memory for BPF programs, one pool for the machine, is used up: compare `sysctl"
    " net.core.bpf_jit_limit` with the bpf_jit lines of /proc/vmallocinfo, end what holds programs (`bpftool"
    " prog`; processes with socket filters) or raise the limit",
)
_STUCK = "a step of its making does not return"
STUCK_REMEDY = (
    "the kernel's log (dmesg: blocked for more than, lockup) and /proc/PID/stack say what it waits for; a"
    " process in state D ends with its wait or with a restart of the machine"
)
_BY_ERRNO = {
    errno.EAGAIN: (
        "the machine cannot start one more process",
        "compare with what runs: `sysctl kernel.pid_max kernel.threads-max`, TasksMax= of the service,"
        " pids.max of the groups above it",
    ),
    errno.ENOMEM: ("the machine is short of memory", "`free -m`, and the kernel's log"),
    errno.ENOSPC: (
        "the machine has used up one of the kernel's limits",
        "look for user.max_*_namespaces in `sysctl -a`, and at cgroup.stat and cgroup.max.descendants of the"
        " groups above the service",
    ),
    errno.EMFILE: ("the server has too many files open", "raise LimitNOFILE= of the service"),
    errno.ENFILE: ("the machine has too many files open", "raise `sysctl fs.file-max`"),
}
_UNKNOWN = ("a step of its making fails", "see the other lines of `sandrun doctor`")

ZYGOTE_STUCK = Fault(_STUCK, "the process that forks sandboxes does not answer", STUCK_REMEDY)
SLOW = Fault("making one takes long", "a sandbox has been in the making for seconds", STUCK_REMEDY)
SLOTS_RETIRED = Fault(
    "processes of earlier jobs do not end",
    "every slot is retired: something in each does not die",
    STUCK_REMEDY,
)


def unknown(found: str) -> Fault:
    """Wrap a message whose cause is unknown."""
    return Fault(_UNKNOWN[0], found, _UNKNOWN[1])


def of_step(step: str, code: int) -> Fault:
    """Name the cause of a set-up step that failed with an errno."""
    if step == "seccomp" and code in (ENOTSUPP, errno.ENOMEM):
        public, remedy = FILTERS_USED_UP
    else:
        public, remedy = _BY_ERRNO.get(code, _UNKNOWN)
    return Fault(public, f"step {step} failed with errno {code}", remedy)


def of_error(error: BaseException) -> Fault:
    """Name the cause of the daemon's own error, by its errno or that of its cause."""
    cause = error if isinstance(error, OSError) else error.__cause__
    code = cause.errno if isinstance(cause, OSError) else None
    public, remedy = _BY_ERRNO.get(code or 0, _UNKNOWN)
    return Fault(public, str(error), remedy)


def of_stuck(pids: Iterable[int], seconds: float, proc: Path = Path("/proc")) -> Fault:
    """Describe set-up processes that are not ready; each has its step as its name."""
    seen = [f"step {step}, process {pid}: {state}" for pid in pids for step, state in _looked_at(proc, pid)]
    found = f"the sandbox was not ready in {seconds:g} s"
    return Fault(_STUCK, " (".join([found, "; ".join(seen) + ")"]) if seen else found, STUCK_REMEDY)


def _looked_at(proc: Path, pid: int) -> Iterable[tuple[str, str]]:
    """Read name and state of a process (proc_pid_stat(5)), which takes no lock that it may hold."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return
    name = text[text.find("(") + 1 : text.rfind(")")]
    state = text[text.rfind(")") + 2 :][:1]
    yield name if _COMM.fullmatch(name) else "unknown", _STATES.get(state, f"state {state}")


def state_of(pid: int, proc: Path = Path("/proc")) -> str:
    """Describe, for the log, what a process that does not end is doing; "gone" if it has ended."""
    return next((state for _, state in _looked_at(proc, pid)), "gone")
