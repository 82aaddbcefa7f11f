"""The system call filter, installed in children that report what each call answers."""

import ctypes
import errno
import functools
import mmap
import os
import platform
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from pathlib import Path

import pyseccomp
import pytest

from sandrun_executor.seccomp import filter as seccomp
from sandrun_executor.seccomp.names import ALLOWED, PRETENDED, REFUSED
from sandrun_executor.seccomp.sockets import SETTABLE
from sandrun_sandbox import linux_unsafe

SECONDS = 60.0
HIGH = 1 << 32  # above what the kernel looks at
Call = tuple[int, ...]  # number, arguments
CLONE_NEW = {
    "NEWTIME": 0x80, "NEWNS": 0x20000, "NEWCGROUP": 0x2000000, "NEWUTS": 0x4000000, "NEWIPC": 0x8000000,
    "NEWUSER": 0x10000000, "NEWPID": 0x20000000, "NEWNET": 0x40000000,
}  # fmt: skip
TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSCTTY, TCGETS, FIONBIO = 0x5412, 0x541C, 0x541D, 0x540E, 0x5401, 0x5421
UNIX, INET, INET6, NETLINK, PACKET, VSOCK, ALG, BLUETOOTH = 1, 2, 10, 16, 17, 40, 38, 31
STREAM, DGRAM, RAW, RDM, SEQPACKET = 1, 2, 3, 4, 5
X86_64 = platform.machine() == "x86_64"

on_x86_64 = pytest.mark.skipif(not X86_64, reason="an entry of x86")


@functools.cache
def program() -> bytes:
    return seccomp.compile_filter()


def number(name: str) -> int:
    return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))


def filtered(report: Callable[[int], None]) -> bytes:
    """Run report in a filtered child; returns what it wrote to its pipe."""
    code = program()
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read_fd)
            signal.alarm(int(SECONDS))
            linux_unsafe.prctl(linux_unsafe.PR_SET_NO_NEW_PRIVS, 1)
            linux_unsafe.SeccompProgram(code).install()
            report(write_fd)
        except BaseException:
            os.write(write_fd, traceback.format_exc().encode())
            os._exit(99)
        os._exit(0)
    os.close(write_fd)
    written = b""
    with os.fdopen(read_fd, "rb") as pipe:
        while data := pipe.read():
            written += data
    status = os.waitpid(pid, 0)[1]
    assert status == 0, (os.waitstatus_to_exitcode(status), written.decode(errors="replace"))
    return written


def errnos(*calls: Call) -> list[int]:
    """Make raw system calls under the filter; returns the errno of each, 0 for success."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    def report(write_fd: int) -> None:
        for call in calls:
            ctypes.set_errno(0)
            arguments = [ctypes.c_ulong(value & (2**64 - 1)) for value in (*call, *[0] * (7 - len(call)))]
            result = libc.syscall(*arguments)
            os.write(write_fd, struct.pack("i", ctypes.get_errno() if result == -1 else 0))

    return [code for (code,) in struct.iter_unpack("i", filtered(report))]


def names(codes: list[int]) -> list[str]:
    return [errno.errorcode.get(code, str(code)) for code in codes]


# The lists


def resolves(name: str) -> bool:
    for arch in ("X86_64", "X86", "AARCH64", "ARM"):
        try:
            if pyseccomp.resolve_syscall(getattr(pyseccomp.Arch, arch), name) != -1:
                return True
        except OSError:
            continue
    return False


NEWER_THAN_SOME_LIBSECCOMP = {
    "fchmodat2", "futex_requeue", "futex_wait", "futex_wake", "map_shadow_stack", "mseal",
    "set_mempolicy_home_node", "futex_waitv", "quotactl_fd", "process_mrelease",
}  # fmt: skip


def test_names_exist() -> None:
    wrong = {name for name in (*ALLOWED, *REFUSED, *PRETENDED) if not resolves(name)}
    assert wrong <= NEWER_THAN_SOME_LIBSECCOMP


def test_a_name_is_in_one_place() -> None:
    everywhere = [*ALLOWED, *REFUSED, *PRETENDED, *seccomp._CHECKED]
    assert len(everywhere) == len(set(everywhere))


def test_program_is_within_the_kernels_limit() -> None:
    assert len(program()) % 8 == 0
    assert len(program()) // 8 < 4096  # BPF_MAXINSNS


def test_unknown_machine_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_AUDIT_ARCH", {})
    with pytest.raises(seccomp.SeccompError, match="aarch64"):
        seccomp.compile_filter()


# Whole calls


def test_unknown_numbers_do_not_exist() -> None:
    assert set(names(errnos((467 + 200,), (1000,), (100_000,), (0x3FFFFFFF,)))) == {"ENOSYS"}


def test_calls_with_a_fallback_do_not_exist() -> None:
    calls = [
        (number(name),)
        for name in (
            "clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "seccomp",
            "fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "move_mount", "mount_setattr",
            "io_setup", "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents",
            "vmsplice", "ustat", "cachestat", "mq_open", "memfd_secret",
        )
    ]  # fmt: skip
    assert set(names(errnos(*calls))) == {"ENOSYS"}


def test_known_refused_calls_answer_eperm() -> None:
    known = [name for name in REFUSED if resolves(name)]
    codes = errnos(*((number(name),) for name in known if number(name) >= 0))
    tested = [name for name in known if number(name) >= 0]
    assert {name: code for name, code in zip(tested, codes, strict=True) if code != errno.EPERM} == {}
    assert {
        "mount", "unshare", "ptrace", "bpf", "keyctl", "add_key", "userfaultfd", "perf_event_open",
        "open_by_handle_at", "setns", "chroot", "pivot_root", "umount2", "kexec_load", "init_module",
        "process_vm_readv", "process_vm_writev", "pidfd_getfd",
    } <= set(tested)  # fmt: skip


def test_ordinary_calls_pass() -> None:
    assert errnos((number("getpid"),), (number("getuid"),), (number("sched_yield"),)) == [0, 0, 0]


# Arguments


@pytest.mark.parametrize("flag", [flag for flag in CLONE_NEW if flag != "NEWTIME"])
def test_clone_makes_no_namespace(flag: str) -> None:
    value = CLONE_NEW[flag] | signal.SIGCHLD
    thread = 0x100 | 0x200 | 0x400  # CLONE_VM, CLONE_FS, CLONE_FILES
    codes = errnos(
        *(
            (number("clone"), flags)
            for flags in (value, value | HIGH, value | 0xFFFF_FFFF << 32, value | thread)
        )
    )
    assert names(codes) == ["EPERM"] * 4


SOCKETS_REFUSED = [
    *(
        (family, kind, 0)
        for family in (PACKET, VSOCK, ALG, BLUETOOTH, 0, 3, 9, 29, 44, 45)
        for kind in (1, 2, 3)
    ),
    *((family, RAW, protocol) for family in (INET, INET6) for protocol in (0, 1, 6, 255)),
    *(
        (family, kind, protocol)
        for family in (INET, INET6)
        for kind in (1, 2)
        for protocol in (1, 58, 132, 136, 262)
    ),
    *((family, kind, 0) for family in (INET, INET6) for kind in (RDM, SEQPACKET, 6, 10)),
    (UNIX, RAW, 0),
    (UNIX, RDM, 0),
    (INET, STREAM, 132 | HIGH),
    (PACKET, RAW, 0x0300),
    (PACKET | HIGH, DGRAM, 0),
    (INET, RAW | os.O_CLOEXEC, 1),
    (INET | HIGH, RAW, 1),
    (INET, RAW | HIGH, 1),
    (2**32 - 1, STREAM, 0),
]


def test_sockets_refused() -> None:
    codes = errnos(*((number("socket"), *each) for each in SOCKETS_REFUSED))
    wrong = {
        each: errno.errorcode.get(code, code)
        for each, code in zip(SOCKETS_REFUSED, codes, strict=True)
        if code != errno.EAFNOSUPPORT
    }
    assert wrong == {}


SOCKETS_ALLOWED = [
    *((UNIX, kind | flags, 0) for kind in (STREAM, DGRAM, SEQPACKET) for flags in (0, 0o4000, 0o2004000)),
    (INET, STREAM, 0),
    (INET, STREAM, 6),
    (INET, DGRAM, 0),
    (INET, DGRAM, 17),
    (INET, STREAM | os.O_CLOEXEC | os.O_NONBLOCK, 6),
]  # fmt: skip


def test_netlink_sockets() -> None:
    # Not EAFNOSUPPORT, after which some libraries end the program; routes, then xfrm, audit, netfilter, …
    calls = [
        (number("socket"), NETLINK, kind, each)
        for kind in (RAW, DGRAM)
        for each in (0, 2, 4, 6, 9, 12, 15, 16)
    ]
    assert set(errnos(*calls)) == {errno.EOPNOTSUPP}


def test_sockets_allowed() -> None:
    assert set(errnos(*((number("socket"), *each) for each in SOCKETS_ALLOWED))) == {0}


def test_ipv6_reaches_the_kernel() -> None:
    # Both EAFNOSUPPORT where the kernel has no IPv6; else both succeed.
    v6 = errnos((number("socket"), INET6, STREAM, 6), (number("socket"), INET6, DGRAM, 17))
    with_kernel = 0 if Path("/proc/net/if_inet6").exists() else errno.EAFNOSUPPORT
    assert v6 == [with_kernel] * 2


def test_socketpair_only_unix() -> None:
    pair = ctypes.addressof(ctypes.create_string_buffer(8))
    call = number("socketpair")
    families = (UNIX, INET, NETLINK, 30, 30 | HIGH)
    codes = errnos(*((call, family, STREAM, 0, pair) for family in families))
    assert names(codes) == ["0", *["EAFNOSUPPORT"] * 4]


def test_terminal_injection() -> None:
    byte = ctypes.addressof(ctypes.create_string_buffer(8))
    requests = [TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSCTTY]
    calls = [
        (number("ioctl"), 0, request | high, byte) for request in requests for high in (0, HIGH, 7 << 60)
    ]
    assert set(names(errnos(*calls))) == {"EPERM"}


def test_unknown_ioctl() -> None:
    # FS_IOC_SETFLAGS, TIOCSETD, BLKRRPART, SIOCSIFFLAGS, KVM_GET_API_VERSION, …
    unknown = [0x40086602, 0x5423, 0x125F, 0x8914, 0xAE00, 0, 0xFFFFFFFF, 0x5401 ^ 0x10000]
    calls = [(number("ioctl"), 0, request | high) for request in unknown for high in (0, HIGH)]
    assert set(names(errnos(*calls))) == {"ENOTTY"}


def test_known_ioctl() -> None:
    with open("/dev/null", "rb") as file:
        flag = ctypes.create_string_buffer(4)
        calls = [
            (number("ioctl"), file.fileno(), FIONBIO | high, ctypes.addressof(flag)) for high in (0, HIGH)
        ]
        assert errnos(*calls) == [0, 0]


def test_prctl() -> None:
    # PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_MM, PR_CAP_AMBIENT, future ones
    refused = [22, 24, 28, 35, 47, 999, 2**31, 0xFFFFFFFF, 22 | HIGH]
    codes = errnos(*((number("prctl"), option) for option in refused))
    assert names(codes) == ["EINVAL"] * len(refused)
    name = ctypes.addressof(ctypes.create_string_buffer(b"name", 16))
    assert errnos((number("prctl"), 15, name), (number("prctl"), 3), (number("prctl"), 3 | HIGH)) == [0, 0, 0]


def test_personality() -> None:
    call = number("personality")
    # READ_IMPLIES_EXEC, ADDR_NO_RANDOMIZE, PER_LINUX32
    refused = errnos(*((call, value) for value in (0x0400000, 0x0040000, 8, 8 | HIGH)))
    assert names(refused) == ["EPERM"] * 4
    assert errnos((call, 0), (call, 0xFFFFFFFF)) == [0, 0]


def test_huge_pages() -> None:
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    codes = errnos(
        (number("mmap"), 0, 2 << 20, mmap.PROT_READ, private | 0x40000, -1, 0),
        (number("mmap"), 0, 2 << 20, mmap.PROT_READ, private | 0x40000 | 21 << 26 | HIGH, -1, 0),
        (number("memfd_create"), ctypes.addressof(ctypes.create_string_buffer(b"x")), 4),
        (number("shmget"), 0, 2 << 20, 0o4600 | 0o1000),
        (number("mmap"), 0, 4096, mmap.PROT_READ, private, -1, 0),
        (number("memfd_create"), ctypes.addressof(ctypes.create_string_buffer(b"x")), 3),
    )
    assert names(codes) == [*["ENOMEM"] * 4, "0", "0"]


def test_sync_is_not_done() -> None:
    # No test can see that the host's files were not written; the list says it, and this that a program goes on.
    assert errnos((number("sync"),)) == [0]
    assert "sync" in PRETENDED


def test_advice_to_drop_what_others_read_is_not_taken() -> None:
    # Asked about a file that is not open, the kernel would say so.
    dont_need, sequential, unknown = 4, 2, 6
    codes = errnos(*((number("fadvise64"), -1, 0, 0, advice) for advice in (dont_need, sequential, unknown)))
    assert names(codes) == ["0", "EBADF", "EINVAL"]


SOCKET, TCP, IP, IPV6, UDP, NETLINK_LEVEL, TLS = 1, 6, 0, 41, 17, 270, 282
OPTIONS_REFUSED = [
    *(
        (SOCKET, option)
        for option in (1, 14, 26, 27, 29, 35, 36, 37, 44, 45, 50, 51, 52, 60, 61, 63, 64, 65, 68)
    ),
    *((TCP, option) for option in (13, 14, 19, 20, 21, 22, 31, 32, 33, 37, 38)),
    *((IP, option) for option in (4, 11, 16, 17, 19, 21, 35, 36, 39, 41, 42, 46, 48, 64, 65, 200)),
    *((IPV6, option) for option in (1, 4, 5, 6, 20, 25, 27, 32, 42, 46, 54, 55, 57, 59, 64, 73, 75)),
    *((level, option) for level in (UDP, NETLINK_LEVEL, TLS, 255, 284) for option in (1, 2, 3, 100)),
]


def test_socket_options_refused() -> None:
    # An unlisted option never gets as far as the descriptor, which is not open.
    calls = [
        (number("setsockopt"), -1, level | high, option | high, 0, 0)
        for level, option in OPTIONS_REFUSED
        for high in (0, HIGH)
    ]
    assert set(names(errnos(*calls))) == {"ENOPROTOOPT"}


def test_socket_options_allowed_reach_the_kernel() -> None:
    calls = [
        (number("setsockopt"), -1, level | high, option, 0, 0)
        for level, options in SETTABLE.items()
        for option in options.values()
        for high in (0, HIGH)
    ]
    assert set(names(errnos(*calls))) == {"EBADF"}
    assert len(calls) > 100


def test_the_names_of_socket_options_are_pythons() -> None:
    listed = [option for options in SETTABLE.values() for option in options.items()]
    known = {name: getattr(socket, name) for name, _ in listed if hasattr(socket, name)}
    assert len(known) > 25
    assert {name: value for name, value in listed if known.get(name, value) != value} == {}


def test_datagrams_are_not_kept_back() -> None:
    more = 0x8000  # MSG_MORE
    codes = errnos(
        *((number("sendto"), -1, 0, 0, flags, 0, 0) for flags in (more, more | 0x40 | HIGH, 0x40)),
        *((number("sendmsg"), -1, 0, flags) for flags in (more, 0x4000)),
        *((number("sendmmsg"), -1, 0, 0, flags) for flags in (more, 0x4000)),
    )
    more_code = errno.EOPNOTSUPP
    assert codes == [more_code, more_code, errno.EBADF, more_code, errno.EBADF, more_code, errno.EBADF]


def test_what_cannot_be_read_of_a_socket() -> None:
    read = number("getsockopt")
    codes = errnos(
        *((read, -1, *each) for each in ((SOCKET, 57), (SOCKET, 71), (TCP, 35), (SOCKET, 4), (TCP, 11)))
    )
    assert names(codes) == [*["ENOPROTOOPT"] * 3, "EBADF", "EBADF"]


# Other entries to the kernel


def machine_code(*codes: bytes) -> list[int]:
    """Run machine code, int(void), under the filter; returns the result of each function."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    anchor = ctypes.c_char.from_buffer(page)
    start = ctypes.addressof(anchor)

    def report(write_fd: int) -> None:
        for code in codes:
            page.seek(0)
            page.write(code)
            os.write(write_fd, struct.pack("i", ctypes.CFUNCTYPE(ctypes.c_int)(start)()))

    try:
        return [result for (result,) in struct.iter_unpack("i", filtered(report))]
    finally:
        del anchor
        page.close()


@on_x86_64
def test_i386_entry() -> None:
    calls = (20, 1, 4, 120, 11, 102)  # getpid exit write clone execve socketcall, none of which happens
    codes = [b"\x53\x31\xdb\xb8" + struct.pack("<I", nr) + b"\xcd\x80\x5b\xc3" for nr in calls]
    assert machine_code(*codes) == [-errno.ENOSYS] * len(calls)


@on_x86_64
def test_x32_numbers() -> None:
    x32 = 0x40000000
    numbers = [number("getpid"), number("write"), number("mount"), 512, 520, 547]
    assert set(names(errnos(*((x32 | nr,) for nr in numbers)))) == {"ENOSYS"}
