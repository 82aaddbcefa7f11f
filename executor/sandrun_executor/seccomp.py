"""The system call filter of a job: names as data, compiled once, installed as bytes (seccomp(2)).

libseccomp says the numbers of the names; the program is our own (docs/adr/0006-an-own-seccomp-compiler.md).
Only the low 32 bits of an argument are compared, as the kernel's own code for these calls does.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyseccomp

from sandrun_executor import bpf
from sandrun_executor.seccomp_names import ALLOWED, REFUSED
from sandrun_executor.seccomp_nvidia import (
    NVIDIA_FRONTEND,
    NVIDIA_FRONTEND_MASK,
    NVIDIA_UVM,
    NVIDIA_UVM_START,
)

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data, little endian
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALL = 0xFFFFFFFF


class SeccompError(Exception):
    """The filter cannot be made on this machine."""


@dataclass(frozen=True)
class _Check:
    """What an argument's masked value decides: (values, return or next check); any other is an error."""

    argument: int
    cases: tuple[tuple[tuple[int, ...], "int | _Check"], ...]
    error: int
    mask: int = _ALL


_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_TYPE = _ALL & ~(os.O_NONBLOCK | os.O_CLOEXEC)  # SOCK_NONBLOCK and SOCK_CLOEXEC have these values
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _DGRAM, _RAW, _SEQPACKET = 1, 2, 3, 5
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
_NO_FAMILY = errno.EAFNOSUPPORT
_TRANSPORTS = _Check(2, (((0, 6, 17), _ALLOW),), _NO_FAMILY)  # the kind's own, TCP, UDP
_ROUTES = _Check(2, (((0,), _ALLOW),), _NO_FAMILY)  # NETLINK_ROUTE
_SOCKETS = (
    ((_UNIX,), _Check(1, (((_STREAM, _DGRAM, _SEQPACKET), _ALLOW),), _NO_FAMILY, _TYPE)),
    ((_INET, _INET6), _Check(1, (((_STREAM, _DGRAM), _TRANSPORTS),), _NO_FAMILY, _TYPE)),
    ((_NETLINK,), _Check(1, (((_DGRAM, _RAW), _ROUTES),), _NO_FAMILY, _TYPE)),
)
_CHECKED = {
    "clone": _Check(0, (((0,), _ALLOW),), errno.EPERM, _NAMESPACES),
    "socket": _Check(0, _SOCKETS, _NO_FAMILY),
    "socketpair": _Check(0, (((_UNIX,), _ALLOW),), _NO_FAMILY),
    "ioctl": _Check(1, ((_TTY_INJECTION, _ERRNO | errno.EPERM), (_IOCTLS, _ALLOW)), errno.ENOTTY),
    # A name that a thread gives itself would stand in the kernel's log: the call does nothing and returns 0.
    "prctl": _Check(0, ((_PRCTLS, _ALLOW), ((_SET_NAME,), _ERRNO)), errno.EINVAL),
    "personality": _Check(0, (((0, 0xFFFFFFFF), _ALLOW),), errno.EPERM),
}


def _decision(check: int | _Check) -> bpf.Decision:
    if isinstance(check, int):
        return check
    decision: bpf.Decision = _ERRNO | check.error
    for values, found in reversed(check.cases):
        decision = bpf.among(values, _decision(found), decision)
    return bpf.Load(_ARGS + 8 * check.argument, decision, check.mask)


def _numbers(arch: int, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        number = pyseccomp.resolve_syscall(arch, name)
        # Negative: a call of other architectures, or newer than this libseccomp. It stays ENOSYS.
        if number >= 0:
            yield name, number


def _gpu_ioctls() -> bpf.Decision:
    """The check of ioctl for a job with a GPU: what every job may, and what CUDA asks NVIDIA's driver for."""
    refused = _ERRNO | errno.ENOTTY
    frontend = bpf.Load(_ARGS + 8, bpf.among(NVIDIA_FRONTEND, _ALLOW, refused), NVIDIA_FRONTEND_MASK)
    memory = bpf.lookup(dict.fromkeys(NVIDIA_UVM, _ALLOW), frontend)
    plain = bpf.among((*_IOCTLS, *NVIDIA_UVM_START), _ALLOW, memory)
    return bpf.Load(_ARGS + 8, bpf.among(_TTY_INJECTION, _ERRNO | errno.EPERM, plain))


def compile_filter(machine: str = os.uname().machine, *, gpu: bool = False) -> bytes:
    """The whole program, an array of struct sock_filter; gpu: for a job that has one. Raises SeccompError."""
    arch = _AUDIT_ARCH.get(machine)
    if arch is None:
        raise SeccompError(f"no system call filter for {machine}: it runs on x86_64 and aarch64")
    calls: dict[int, bpf.Decision] = {number: _ALLOW for _, number in _numbers(arch, ALLOWED)}
    calls |= {number: _ERRNO | errno.EPERM for _, number in _numbers(arch, REFUSED)}
    calls |= {number: _decision(_CHECKED[name]) for name, number in _numbers(arch, _CHECKED)}
    if gpu:
        calls |= {number: _gpu_ioctls() for _, number in _numbers(arch, ("ioctl",))}
    unknown = _ERRNO | errno.ENOSYS
    # The numbers of x32, whose architecture is x86_64's too, are far above all known ones: they are unknown.
    known = bpf.Load(_NR, bpf.lookup(calls, unknown))
    try:
        return bpf.assemble(bpf.Load(_ARCH, bpf.Equal(arch, known, unknown)))
    except bpf.BpfError as error:
        raise SeccompError(f"no system call filter for {machine}: {error}") from None
