"""What this machine must have before a job may run: one probe per feature, each a plain function.

Probes take the paths they read as arguments, so that tests can use plain files. They change nothing.
"""

import errno
import importlib
import os
import platform
import re
import select
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sandrun_executor import kernel as kernels
from sandrun_executor.cgroups import probe, v1, v2
from sandrun_executor.sandboxes import faults
from sandrun_executor.seccomp import audit
from sandrun_sandbox import linux_unsafe
from sandrun_shared import kernel_log
from sandrun_shared.languages import LANGUAGES

OLDEST_KERNEL = (5, 14)  # cgroup.kill; pidfd, clone3, openat2, close_range and Landlock are older
FILTER_SECONDS = 5.0
DEATH_SECONDS = 1.0  # from SIGKILL to the process's end, unless it hangs in the kernel
NOBODY = 65534
_SECCOMP = "sandrun_executor.seccomp.filter"  # its import loads libseccomp, which an earlier check looks for
NAMESPACES = frozenset({"pid", "mnt", "net", "ipc", "uts", "cgroup", "user", "time"})
BASE_INTERPRETERS = frozenset({"python3", "bash", "sh", "node", "perl"})  # reported if missing
# Numbers of linux/capability.h.
CAPABILITIES = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8,
    "NET_ADMIN": 12, "SYS_CHROOT": 18, "SYS_ADMIN": 21,
}  # fmt: skip
_SYS_RESOURCE = 24  # optional: allows hard limits for jobs above those of this process


@dataclass(frozen=True)
class Check:
    """One check: what was found, and the remedy if it is not ok.

    Without a required one no job may run; the others are advice.
    """

    name: str
    ok: bool
    required: bool
    found: str
    mend: str = ""


def checks() -> list[Check]:
    """Run all probes, in the order in which an operator would fix them."""
    return [
        kernel(platform.release()),
        privileges(Path("/proc/self/status")),
        cgroups(Path("/sys/fs/cgroup"), Path("/proc/self/mounts")),
        namespaces(Path("/proc/self/ns"), Path("/proc/sys/user")),
        seccomp(Path("/proc/sys/kernel/seccomp/actions_avail")),
        libseccomp(),
        filters(),
        landlock(),
        overlay(Path("/proc/filesystems")),
        swap(Path("/proc/swaps"), platform.release()),
        kernel_settings(Path("/proc/sys")),
        core_pattern(kernels.CORE_PATTERN),
        auditing(),
        stack(Path("/proc/self/limits"), Path("/proc/self/status")),
        *interpreters(programs()),
    ]


def kernel(release: str) -> Check:
    """The kernel is new enough."""
    oldest = ".".join(map(str, OLDEST_KERNEL))
    return Check(
        "kernel", kernels.version(release) >= OLDEST_KERNEL, True, f"Linux {release}",
        f"run Linux {oldest} or newer",
    )  # fmt: skip


def privileges(status: Path) -> Check:
    """This process has the capabilities that making a sandbox needs (proc_pid_status(5), CapEff)."""
    name, mend = "privileges", "run as root, and in a container with all capabilities"
    held = _effective(status)
    missing = [capability for capability, bit in CAPABILITIES.items() if not held >> bit & 1]
    found = "without " + ", ".join(f"CAP_{capability}" for capability in missing)
    return Check(name, not missing, True, found if missing else "all capabilities needed", mend)


def cgroups(root: Path, mounts: Path) -> Check:
    """The memory, pids and cpu controllers can be used, in cgroup v2 or in separate v1 hierarchies."""
    unified = set(_text(root / "cgroup.controllers").split())
    if unified >= set(v2.CONTROLLERS):
        ok = os.access(root / "cgroup.subtree_control", os.W_OK)
        return Check(
            "cgroup", ok, True, "v2" if ok else "v2, read-only", "mount /sys/fs/cgroup writable for Sandrun"
        )
    _, mounted = probe.mounts_in(_text(mounts))
    missing = sorted(set(v1.CONTROLLERS) - mounted.keys())
    used = {mounted[name] for name in v1.CONTROLLERS if name in mounted}
    locked = sorted(str(path) for path in used if not os.access(path, os.W_OK))
    if missing:
        found = f"no controller {', '.join(missing)}"
        mend = "boot with systemd.unified_cgroup_hierarchy=1 and cgroup_enable=memory"
        return Check("cgroup", False, True, found, mend)
    if locked:
        return Check("cgroup", False, True, f"v1, read-only: {', '.join(locked)}", "mount it writable")
    return Check("cgroup", True, True, "v1")


def namespaces(folder: Path, limits: Path) -> Check:
    """The kernel has every namespace, and lets at least one more of each be made (namespaces(7))."""
    missing = sorted(NAMESPACES - set(_names(folder)))
    none_left = sorted(
        name for name in NAMESPACES - {"time"} if _text(limits / f"max_{name}_namespaces").strip() == "0"
    )
    found = "all of " + ", ".join(sorted(NAMESPACES))
    mend = "use a kernel built with them"
    if missing:
        found = f"no {', '.join(missing)} namespace"
    elif none_left:
        found = f"limit of 0 for {', '.join(none_left)}"
        mend = "; ".join(f"sysctl user.max_{name}_namespaces=10000" for name in none_left)
    return Check("namespaces", not missing and not none_left, True, found, mend)


def seccomp(actions: Path) -> Check:
    """The kernel filters system calls and can answer them with an errno (seccomp(2))."""
    available = _text(actions).split()
    ok = {"errno", "allow"} <= set(available)
    return Check(
        "seccomp", ok, True, " ".join(available) or "none", "use a kernel with CONFIG_SECCOMP_FILTER"
    )


def libseccomp(load: Callable[[str], object] = importlib.import_module) -> Check:
    """The library that compiles filters can be loaded."""
    try:
        load("pyseccomp")
    except (ImportError, OSError, RuntimeError) as error:
        return Check("libseccomp", False, True, str(error), "apt-get install libseccomp2")
    return Check("libseccomp", True, True, "loads")


def filters(install: Callable[[], object] | None = None, seconds: float = FILTER_SECONDS) -> Check:
    """A job's filter can be installed now: an unprivileged child tries it under a deadline."""
    name = "filters"
    if install is None:
        try:
            install = linux_unsafe.SeccompProgram(importlib.import_module(_SECCOMP).compile_filter()).install
        except Exception as error:  # a missing or broken library may raise anything
            return Check(name, False, True, f"no filter was compiled: {error}", "see libseccomp")
    code = _in_child(install, seconds)
    if code is None:
        found = f"installing one does not return in {seconds:g} s"
        return Check(name, False, True, found, faults.STUCK_REMEDY)
    if code == 0:
        return Check(name, True, True, "one more can be installed")
    fault = faults.of_step("seccomp", code)
    return Check(name, False, True, f"{fault.found}: {fault.public}", fault.remedy)


def _in_child(action: Callable[[], object], seconds: float) -> int | None:
    """Run an action in an unprivileged child; returns its errno, 0 for success, None if it does not end.

    The child holds no descriptor of ours: if it cannot be killed, nobody waits for it through a pipe.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            _try(action, write_fd)
        finally:
            os._exit(1)
    os.close(write_fd)
    try:
        answer = os.read(read_fd, 16) if select.select([read_fd], [], [], seconds)[0] else None
    finally:
        os.close(read_fd)
        _end(pid)
    return None if answer is None else int(answer or errno.EPERM)


def _try(action: Callable[[], object], write_fd: int) -> None:
    os.dup2(write_fd, 3)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    linux_unsafe.close_range(4)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    linux_unsafe.prctl(linux_unsafe.PR_SET_NO_NEW_PRIVS, 1)
    code = 0
    try:
        action()
    except OSError as error:
        code = error.errno or errno.EPERM
    os.write(3, b"%d" % code)


def _end(pid: int) -> None:
    """Kill the child and reap it if it dies soon; otherwise init will."""
    pidfd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        if select.select([pidfd], [], [], DEATH_SECONDS)[0]:
            os.waitpid(pid, 0)
    finally:
        os.close(pidfd)


def landlock(abi: Callable[[], int] = linux_unsafe.landlock_abi) -> Check:
    """The kernel has Landlock, an additional layer; the others hold without it."""
    mend = "boot with landlock in the kernel's lsm= list"
    try:
        version = abi()
    except OSError as error:
        return Check("Landlock", False, False, error.strerror or str(error), mend)
    return Check("Landlock", version > 0, False, f"ABI {version}", mend)


def overlay(filesystems: Path) -> Check:
    """Each job can have separate inodes over the shared read-only root."""
    ok = "overlay" in _text(filesystems).split()
    return Check("overlayfs", ok, True, "available" if ok else "not available", "modprobe overlay")


def swap(swaps: Path, release: str) -> Check:
    """A job's files in memory cannot be swapped out to a disk."""
    devices = [line.split()[0] for line in _text(swaps).splitlines()[1:] if line.strip()]
    if not devices:
        return Check("swap", True, False, "off")
    ok = kernels.has_noswap(release)
    found = (
        f"on ({', '.join(devices)}), {'but job files are kept out of it' if ok else 'job files may reach it'}"
    )
    return Check("swap", ok, False, found, "swapoff --all, or a kernel of 6.4 or newer")


def kernel_settings(folder: Path) -> Check:
    """The kernel logs no words of a client."""
    others = kernel_log.others(folder)
    found = ", ".join(f"{name} = {value}" for name, value in others.items())
    return Check(
        "kernel log", not others, False,
        f"{found}: file names and code of jobs may be written to it" if others else "says nothing of jobs",
        kernel_log.mend(others),
    )  # fmt: skip


def core_pattern(path: Path) -> Check:
    """No program receives core dumps, since the kernel would then log a crashing job's command name."""
    pattern = _text(path).strip()
    piped = kernels.pipes_cores(pattern)
    return Check(
        "core dumps", not piped, False,
        "go to a program: the kernel's log gets the command name of what crashes" if piped else "are off",
        "sysctl -w kernel.core_pattern=core, and take away what sets it: systemd-coredump, apport",
    )  # fmt: skip


def auditing(enabled: Callable[[], bool] = audit.enabled) -> Check:
    """Auditing is off, since it would record the path of every program that crashes (ANOM_ABEND)."""
    mend = "boot with audit=0; or keep auditing, and auditctl -a always,exclude -F msgtype=ANOM_ABEND"
    try:
        ok = not enabled()
    except OSError as error:
        return Check("audit", False, False, f"cannot be asked for: {error.strerror or error}", mend)
    return Check("audit", ok, False, "off" if ok else "on: it records the paths of jobs that crash", mend)


def stack(limits: Path, status: Path) -> Check:
    """Jobs may let their stacks grow up to their memory limit (RLIMIT_STACK, proc_pid_limits(5))."""
    match = re.search(r"^Max stack size\s+\S+\s+(\S+)", _text(limits), re.MULTILINE)
    hard = match[1] if match else "0"
    if hard == "unlimited" or _effective(status) >> _SYS_RESOURCE & 1:
        return Check("stack", True, False, "jobs may raise their limit")
    found = f"at most {int(hard) >> 10} KiB, and without CAP_SYS_RESOURCE no job may have more"
    mend = "LimitSTACK=8M:infinity in the service's unit; elsewhere `ulimit -Hs unlimited` before the start"
    return Check("stack", False, False, found, mend)


def _effective(status: Path) -> int:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", _text(status), re.MULTILINE)
    return int(match[1], 16) if match else 0


def programs() -> list[Path]:
    """The interpreters and compilers of the table of languages."""
    needed = (language.needs for language in LANGUAGES)
    return [Path(path) for path in dict.fromkeys(needed) if path]


def interpreters(paths: Iterable[Path]) -> list[Check]:
    """The interpreters of jobs; only python3 is required, executable by others."""
    found: list[Check] = []
    for path in paths:
        name = path.name
        try:
            ok = bool(path.stat().st_mode & 0o001)
            text = str(path.resolve()) if ok else f"{path} cannot be executed by other users"
        except OSError:
            ok, text = False, "not installed"
        if ok or name in BASE_INTERPRETERS or path.exists():
            mend = f"chmod o+x {path}" if path.exists() else f"install {name} in {path.parent}"
            found.append(Check(name, ok, name == "python3", text, "" if ok else mend))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
