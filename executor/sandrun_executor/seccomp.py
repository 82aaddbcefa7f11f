"""The system call filter of a job: names as data, compiled once, installed as bytes (seccomp(2)).

Plain names are compiled by libseccomp. Calls whose arguments matter are tested before it by a short program
of our own, because each has an error of its own for what it refuses, which libseccomp cannot say. Only the
low 32 bits of an argument are compared, as the kernel's own code for these calls does.
"""

import errno
import os
import struct

import pyseccomp

from sandrun_executor.seccomp_names import ALLOWED, REFUSED

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_ALU|AND|K, BPF_RET|K
_LD, _JEQ, _JGE, _AND, _RET = 0x20, 0x15, 0x35, 0x54, 0x06
_BINARY_TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE: the kernel walks the program once for every call number there is
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data, little endian
_X32 = 0x40000000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALL = 0xFFFFFFFF

Condition = tuple[int, int, int]  # argument number, mask, value
Instruction = tuple[int, int, int, int]


class SeccompError(Exception):
    """The filter cannot be made on this machine."""


def _any_of(argument: int, values: tuple[int, ...]) -> list[list[Condition]]:
    return [[(argument, _ALL, value)] for value in values]


_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_TYPE = _ALL & ~(os.O_NONBLOCK | os.O_CLOEXEC)  # SOCK_NONBLOCK and SOCK_CLOEXEC have these values
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_TTY_INJECTION = (0x5412, 0x541C, 0x541D, 0x540E)  # TIOCSTI TIOCLINUX TIOCCONS TIOCSCTTY
_IOCTLS = (
    *(0x5401, 0x5402, 0x5403, 0x5404, 0x5413, 0x5414),  # TCGETS TCSETS TCSETSW TCSETSF TIOCGWINSZ TIOCSWINSZ
    *(0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D),  # TCGETS2 TCSETS2 TCSETSW2 TCSETSF2, glibc 2.42
    *(0x540F, 0x5410, 0x5411, 0x5429),  # TIOCGPGRP TIOCSPGRP TIOCOUTQ TIOCGSID
    *(0x541B, 0x5421, 0x5450, 0x5451, 0x5452),  # FIONREAD FIONBIO FIONCLEX FIOCLEX FIOASYNC
    *(0x8910, 0x8912, 0x8913, 0x8915, 0x8919, 0x891B, 0x8921, 0x8927, 0x8933),  # SIOCGIF*
)
_PRCTLS = (
    *(1, 2, 3, 4, 15, 16),  # PR_SET/GET_PDEATHSIG, PR_GET/SET_DUMPABLE, PR_SET/GET_NAME
    *(7, 21, 23, 25, 26, 27, 29, 30),  # PR_GET_KEEPCAPS SECCOMP, PR_CAPBSET_READ, TSC, SECUREBITS, TIMERSLACK
    *(33, 34, 36, 37, 38, 39),  # machine check, child subreaper, no_new_privs
    *(0x53564D41, 0x59616D61),  # PR_SET_VMA, PR_SET_PTRACER
)
# Call → (alternatives, each a list of conditions; the error when none holds).
_CHECKED: dict[str, tuple[list[list[Condition]], int]] = {
    "clone": ([[(0, _NAMESPACES, 0)]], errno.EPERM),
    "socket": (
        [
            *([(0, _ALL, _UNIX), (1, _TYPE, kind)] for kind in (1, 2, 5)),
            *(
                [(0, _ALL, family), (1, _TYPE, kind), (2, _ALL, protocol)]
                for family in (_INET, _INET6)
                for kind in (1, 2)
                for protocol in (0, 6, 17)
            ),
            *([(0, _ALL, _NETLINK), (1, _TYPE, kind), (2, _ALL, 0)] for kind in (2, 3)),
        ],
        errno.EAFNOSUPPORT,
    ),
    "socketpair": ([[(0, _ALL, _UNIX)]], errno.EAFNOSUPPORT),
    "ioctl": (_any_of(1, _IOCTLS), errno.ENOTTY),
    "prctl": (_any_of(0, _PRCTLS), errno.EINVAL),
    "personality": (_any_of(0, (0, 0xFFFFFFFF)), errno.EPERM),
}


def _alternative(conditions: list[Condition]) -> list[Instruction]:
    """Return ALLOW if every condition holds, else fall through."""
    program: list[Instruction] = [(_RET, 0, 0, _ALLOW)]
    for argument, mask, value in reversed(conditions):
        test = [(_LD, 0, 0, _ARGS + 8 * argument)]
        if mask != _ALL:
            test.append((_AND, 0, 0, mask))
        program = [*test, (_JEQ, 0, len(program), value), *program]
    return program


def _refuse_tty_injection() -> list[Instruction]:
    program: list[Instruction] = [(_LD, 0, 0, _ARGS + 8)]
    for request in _TTY_INJECTION:
        program += [(_JEQ, 0, 1, request), (_RET, 0, 0, _ERRNO | errno.EPERM)]
    return program


def _checked_calls(machine: str) -> list[Instruction]:
    arch = _AUDIT_ARCH.get(machine)
    if arch is None:
        raise SeccompError(f"no system call filter for {machine}: it runs on x86_64 and aarch64")
    refuse: Instruction = (_RET, 0, 0, _ERRNO | errno.ENOSYS)
    program: list[Instruction] = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, arch), refuse, (_LD, 0, 0, _NR)]
    if machine == "x86_64":
        program += [(_JGE, 0, 1, _X32), refuse]
    for name, (alternatives, error) in _CHECKED.items():
        body = _refuse_tty_injection() if name == "ioctl" else []
        for conditions in alternatives:
            body += _alternative(conditions)
        body.append((_RET, 0, 0, _ERRNO | error))
        number = pyseccomp.resolve_syscall(arch, name)
        # A conditional jump reaches 255 instructions; the longest body, socket's, has fewer.
        program += [(_JEQ, 0, len(body), number), *body]
    return program


def _plain_calls(machine: str) -> bytes:
    arch = _AUDIT_ARCH[machine]
    filter_ = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))
    filter_.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    if machine != os.uname().machine:
        filter_.add_arch(arch)
        filter_.remove_arch(pyseccomp.Arch.NATIVE)
    for action, names in ((pyseccomp.ALLOW, ALLOWED), (pyseccomp.ERRNO(errno.EPERM), REFUSED)):
        for name in names:
            try:
                there = pyseccomp.resolve_syscall(arch, name)
                number = pyseccomp.resolve_syscall(
                    pyseccomp.Arch.NATIVE, name
                )  # what libseccomp wants to be told
            except OSError:
                continue  # newer than this libseccomp: it stays ENOSYS, as on an older kernel
            if there >= 0:  # negative: a call of other architectures
                filter_.add_rule(action, number)
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w+b") as file:
        filter_.export_bpf(file)
        return os.pread(fd, 1 << 20, 0)


def compile_filter(machine: str = os.uname().machine) -> bytes:
    """The whole program, an array of struct sock_filter. Raises SeccompError, OSError."""
    checked = b"".join(struct.pack("=HBBI", *instruction) for instruction in _checked_calls(machine))
    return checked + _plain_calls(machine)
