"""The system call filter of a job: names as data, compiled once, installed as bytes (seccomp(2)).

libseccomp maps names to numbers; we generate the program (docs/adr/0006-an-own-seccomp-compiler.md).
Only the low 32 bits of an argument are compared, as the kernel's own code for these calls does.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyseccomp

from sandrun_executor.seccomp import bpf
from sandrun_executor.seccomp.names import ALLOWED, PRETENDED, REFUSED
from sandrun_executor.seccomp.nvidia import (
    NVIDIA_FRONTEND,
    NVIDIA_FRONTEND_MASK,
    NVIDIA_UVM,
    NVIDIA_UVM_START,
)
from sandrun_executor.seccomp.sockets import RESOLVER, SETTABLE, UNREADABLE

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data, little endian
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALL = 0xFFFFFFFF


class SeccompError(Exception):
    """The filter cannot be made on this machine."""


@dataclass(frozen=True)
class _Check:
    """A check of an argument's masked value: (values, return or next check), otherwise a return."""

    argument: int
    cases: tuple[tuple[tuple[int, ...], "int | _Check"], ...]
    otherwise: int
    mask: int = _ALL


def _refuse(code: int) -> int:
    return _ERRNO | code


def _options(levels: dict[int, dict[str, int]], listed: int, others: int) -> _Check:
    """Build the check of socket options by level, with one answer for all others."""
    cases = (
        ((level,), _Check(2, ((tuple(options.values()), listed),), others))
        for level, options in levels.items()
    )
    return _Check(1, tuple(cases), others)


_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_TYPE = _ALL & ~(os.O_NONBLOCK | os.O_CLOEXEC)  # SOCK_NONBLOCK and SOCK_CLOEXEC have these values
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _DGRAM, _SEQPACKET = 1, 2, 5
_TTY_INJECTION = (0x5412, 0x541C, 0x541D, 0x540E)  # TIOCSTI TIOCLINUX TIOCCONS TIOCSCTTY
_IOCTLS = (
    *(0x5401, 0x5402, 0x5403, 0x5404, 0x5413, 0x5414),  # TCGETS TCSETS TCSETSW TCSETSF TIOCGWINSZ TIOCSWINSZ
    *(0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D),  # TCGETS2 TCSETS2 TCSETSW2 TCSETSF2, glibc 2.42
    *(0x540F, 0x5410, 0x5411, 0x5429),  # TIOCGPGRP TIOCSPGRP TIOCOUTQ TIOCGSID
    *(0x541B, 0x5421, 0x5450, 0x5451, 0x5452),  # FIONREAD FIONBIO FIONCLEX FIOCLEX FIOASYNC
    *(0x8910, 0x8912, 0x8913, 0x8915, 0x8919, 0x891B, 0x8921, 0x8927, 0x8933),  # SIOCGIF*
)
_PRCTLS = (
    *(1, 2, 3, 4, 16),  # PR_SET/GET_PDEATHSIG, PR_GET/SET_DUMPABLE, PR_GET_NAME
    *(7, 21, 23, 25, 26, 27, 29, 30),  # PR_GET_KEEPCAPS SECCOMP, PR_CAPBSET_READ, TSC, SECUREBITS, TIMERSLACK
    *(33, 34, 36, 37, 38, 39),  # machine check, child subreaper, no_new_privs
    *(0x53564D41, 0x59616D61),  # PR_SET_VMA, PR_SET_PTRACER
)
_SET_NAME = 15
_NO_FAMILY, _NO_OPTION = _refuse(errno.EAFNOSUPPORT), _refuse(errno.ENOPROTOOPT)
# The answer of a kernel without reserved huge pages; no memory cgroup counts those that the host has
# reserved.
_NO_HUGE_PAGE = _refuse(errno.ENOMEM)
_MAP_HUGETLB, _MFD_HUGETLB, _SHM_HUGETLB = 0x40000, 4, 0o4000
# A corked datagram holds up to 64 KiB in each socket, which no cgroup counts (udp(7)). What splice and
# sendfile hold back by SPLICE_F_MORE is not copied: its pages are those of a pipe or file, and charged. The
# kernel also sets that flag by itself, so refusing it would gain nothing and break programs.
_NO_MORE, _MSG_MORE = _refuse(errno.EOPNOTSUPP), 0x8000
_DROP, _ADVICE = 4, (0, 1, 2, 3, 5)  # POSIX_FADV_DONTNEED, and all others
_TRANSPORTS = _Check(2, (((0, 6, 17), _ALLOW),), _NO_FAMILY)  # default, TCP, UDP
_SOCKETS = (
    ((_UNIX,), _Check(1, (((_STREAM, _DGRAM, _SEQPACKET), _ALLOW),), _NO_FAMILY, _TYPE)),
    ((_INET, _INET6), _Check(1, (((_STREAM, _DGRAM), _TRANSPORTS),), _NO_FAMILY, _TYPE)),
    # Netlink answers wait in queues that no cgroup counts, up to 8 MiB for each socket. ZeroMQ, which lists
    # the interfaces (getifaddrs(3)), tolerates this errno and aborts the program on others.
    ((_NETLINK,), _refuse(errno.EOPNOTSUPP)),
)
_CHECKED = {
    "clone": _Check(0, (((0,), _ALLOW),), _refuse(errno.EPERM), _NAMESPACES),
    "socket": _Check(0, _SOCKETS, _NO_FAMILY),
    "socketpair": _Check(0, (((_UNIX,), _ALLOW),), _NO_FAMILY),
    "ioctl": _Check(1, ((_TTY_INJECTION, _refuse(errno.EPERM)), (_IOCTLS, _ALLOW)), _refuse(errno.ENOTTY)),
    # A thread's name would appear in the kernel's log, so the call does nothing and returns 0.
    "prctl": _Check(0, ((_PRCTLS, _ALLOW), ((_SET_NAME,), _refuse(0))), _refuse(errno.EINVAL)),
    "personality": _Check(0, (((0, 0xFFFFFFFF), _ALLOW),), _refuse(errno.EPERM)),
    "mmap": _Check(3, (((0,), _ALLOW),), _NO_HUGE_PAGE, _MAP_HUGETLB),
    "memfd_create": _Check(1, (((0,), _ALLOW),), _NO_HUGE_PAGE, _MFD_HUGETLB),
    "shmget": _Check(2, (((0,), _ALLOW),), _NO_HUGE_PAGE, _SHM_HUGETLB),
    # The cache of /usr belongs to the whole host, and a job that empties it would learn what others read
    # since.
    "fadvise64": _Check(3, (((_DROP,), _refuse(0)), (_ADVICE, _ALLOW)), _refuse(errno.EINVAL)),
    "sendto": _Check(3, (((0,), _ALLOW),), _NO_MORE, _MSG_MORE),
    "sendmsg": _Check(2, (((0,), _ALLOW),), _NO_MORE, _MSG_MORE),
    "sendmmsg": _Check(3, (((0,), _ALLOW),), _NO_MORE, _MSG_MORE),
    "setsockopt": _options(SETTABLE, _ALLOW, _NO_OPTION),
    "getsockopt": _options(UNREADABLE, _NO_OPTION, _ALLOW),
}


def _decision(check: int | _Check) -> bpf.Decision:
    if isinstance(check, int):
        return check
    decision: bpf.Decision = check.otherwise
    for values, found in reversed(check.cases):
        decision = bpf.within(values, _decision(found), decision)
    return bpf.Load(_ARGS + 8 * check.argument, decision, check.mask)


def _numbers(arch: int, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        number = pyseccomp.resolve_syscall(arch, name)
        # Negative for a call of other architectures, or newer than this libseccomp: it stays ENOSYS.
        if number >= 0:
            yield name, number


def _gpu_ioctls() -> bpf.Decision:
    """Build the ioctl check for a job with a GPU: every job's ioctls, and those that CUDA needs."""
    refused = _refuse(errno.ENOTTY)
    frontend = bpf.Load(_ARGS + 8, bpf.among(NVIDIA_FRONTEND, _ALLOW, refused), NVIDIA_FRONTEND_MASK)
    memory = bpf.lookup(dict.fromkeys(NVIDIA_UVM, _ALLOW), frontend)
    plain = bpf.within((*_IOCTLS, *NVIDIA_UVM_START), _ALLOW, memory)
    return bpf.Load(_ARGS + 8, bpf.among(_TTY_INJECTION, _refuse(errno.EPERM), plain))


def compile_filter(machine: str = os.uname().machine, *, gpu: bool = False, resolver: bool = False) -> bytes:
    """Compile the filter to an array of struct sock_filter. Raises SeccompError.

    gpu: for a job that has one. resolver: for our process that queries name servers.
    """
    arch = _AUDIT_ARCH.get(machine)
    if arch is None:
        raise SeccompError(f"no system call filter for {machine}: it runs on x86_64 and aarch64")
    calls: dict[int, bpf.Decision] = {number: _ALLOW for _, number in _numbers(arch, ALLOWED)}
    calls |= {number: _refuse(errno.EPERM) for _, number in _numbers(arch, REFUSED)}
    calls |= {number: _refuse(0) for _, number in _numbers(arch, PRETENDED)}
    calls |= {number: _decision(_CHECKED[name]) for name, number in _numbers(arch, _CHECKED)}
    if gpu:
        calls |= {number: _gpu_ioctls() for _, number in _numbers(arch, ("ioctl",))}
    if resolver:
        options = {level: own | RESOLVER.get(level, {}) for level, own in SETTABLE.items()}
        check = _options(options, _ALLOW, _NO_OPTION)
        calls |= {number: _decision(check) for _, number in _numbers(arch, ("setsockopt",))}
    unknown = _refuse(errno.ENOSYS)
    # x32 shares x86_64's architecture, but its numbers are far above all others, so they are unknown.
    known = bpf.Load(_NR, bpf.lookup(calls, unknown))
    try:
        return bpf.assemble(bpf.Load(_ARCH, bpf.Equal(arch, known, unknown)))
    except bpf.BpfError as error:
        raise SeccompError(f"no system call filter for {machine}: {error}") from None
