"""Every ctypes call of the executor and of the sandbox, under the kernel's names.

Standard library only and any CPython from 3.9: this file is also loaded inside the sandbox.
Each function raises OSError with errno and the name or path it was about.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_c = ctypes
_libc = _c.CDLL(None, use_errno=True)
# PyDLL keeps the GIL: the child of a raw clone3 must still hold it.
_held = _c.PyDLL(None, use_errno=True)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_BIND, MS_REC, MS_PRIVATE = 1024, 4096, 16384, 1 << 18
MNT_DETACH = 2

CLONE_NEWTIME, CLONE_PIDFD, CLONE_NEWNS = 0x80, 0x1000, 0x20000
CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
CLONE_INTO_CGROUP = 0x200000000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_SET_SECCOMP = 1, 4, 15, 16, 22
PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 24, 28, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
# NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, each with its lock (capabilities(7)).
SECUREBITS_LOCKED = 0b11101111

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4

RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 2, 4, 8

# System call numbers above 424 are the same on every architecture.
_SYS_PIDFD_OPEN, _SYS_CLONE3, _SYS_CLOSE_RANGE, _SYS_OPENAT2 = 434, 435, 436, 437
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, -1)
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}.get(os.uname().machine, -1)

_int, _long, _ulong, _str, _ptr = _c.c_int, _c.c_long, _c.c_ulong, _c.c_char_p, _c.c_void_p
_libc.mount.argtypes = (_str, _str, _str, _ulong, _str)
_libc.umount2.argtypes = (_str, _int)
_libc.setns.argtypes = (_int, _int)
_libc.unshare.argtypes = (_int,)
_libc.sethostname.argtypes = (_str, _c.c_size_t)
_libc.prctl.argtypes = (_int, _ulong, _ulong, _ulong, _ulong)
_libc.ioctl.argtypes = (_int, _ulong, _ptr)
_libc.madvise.argtypes = (_ptr, _c.c_size_t, _int)
_libc.mprotect.argtypes = (_ptr, _c.c_size_t, _int)
_libc.syscall.restype = _long
_held.syscall.restype = _long


def _check(result: int, subject: object = None) -> int:
    if result < 0:
        code = _c.get_errno()
        raise OSError(code, os.strerror(code), subject)
    return result


def _syscall(number: int, *args: object, subject: object = None) -> int:
    return _check(_libc.syscall(_long(number), *args), subject)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Attach a file system (mount(2))."""
    fields = (source.encode(), os.fsencode(target), kind.encode() or None, flags, data.encode() or None)
    _check(_libc.mount(*fields), target)


def bind_each(pairs: list[tuple[bytes, bytes]]) -> None:
    """Bind each source over its target (mount(2), MS_BIND)."""
    bind = _libc.mount
    for source, target in pairs:
        if bind(source, target, None, MS_BIND, None):
            _check(-1, target)


def umount2(target: str, flags: int = MNT_DETACH) -> None:
    """Detach a file system (umount2(2))."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def open_tree_clone(path: str) -> int:
    """Open a detached copy of the mount at path, or of the file there (open_tree(2))."""
    at_fdcwd, open_tree_clone_flag = -100, 1
    flags = open_tree_clone_flag | os.O_CLOEXEC
    return _syscall(_SYS_OPEN_TREE, _int(at_fdcwd), os.fsencode(path), _c.c_uint(flags), subject=path)


def mount_read_only(mount_fd: int) -> None:
    """Make the mount behind the descriptor read-only, nosuid and nodev for good (mount_setattr(2))."""
    at_empty_path, attributes = 0x1000, 1 | 2 | 4  # MOUNT_ATTR_RDONLY, NOSUID, NODEV
    attr = struct.pack("4Q", attributes, 0, 0, 0)
    size = _c.c_size_t(len(attr))
    _syscall(_SYS_MOUNT_SETATTR, _int(mount_fd), b"", _c.c_uint(at_empty_path), attr, size, subject="mount")


def move_mount(mount_fd: int, target: str) -> None:
    """Attach the detached mount behind the descriptor at target (move_mount(2))."""
    at_fdcwd, empty_path = -100, 4  # MOVE_MOUNT_F_EMPTY_PATH
    where = os.fsencode(target)
    _syscall(
        _SYS_MOVE_MOUNT, _int(mount_fd), b"", _int(at_fdcwd), where, _c.c_uint(empty_path), subject=target
    )


def pivot_root(new_root: str, put_old: str) -> None:
    """Make new_root the root of this mount namespace (pivot_root(2))."""
    _syscall(_SYS_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old), subject=new_root)


def setns(fd: int, kind: int) -> None:
    """Enter the namespace behind fd (setns(2))."""
    _check(_libc.setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones (unshare(2))."""
    _check(_libc.unshare(flags), "unshare")


def sethostname(name: str) -> None:
    """Name this UTS namespace (sethostname(2))."""
    data = name.encode()
    _check(_libc.sethostname(data, len(data)), "sethostname")


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Operate on this process (prctl(2))."""
    return _check(_libc.prctl(option, arg2, arg3, arg4, arg5), ("prctl", option))


_NAME_BYTES = 16  # TASK_COMM_LEN, with its NUL
_own_name, _other_name = _c.create_string_buffer(_NAME_BYTES), _c.create_string_buffer(_NAME_BYTES)
_libc.prctl(PR_GET_NAME, _c.addressof(_own_name), 0, 0, 0)


def set_name(name: str = "") -> None:
    """Set this thread's name, which /proc/pid/comm shows (prctl(2)); "" restores its first name."""
    _other_name.value = name.encode()[: _NAME_BYTES - 1]
    _libc.prctl(PR_SET_NAME, _c.addressof(_other_name if name else _own_name), 0, 0, 0)


def own_name() -> bytes:
    """Return the first name of this thread, which set_name restores."""
    return _own_name.value


def drop_bounding_set() -> None:
    """Take every capability the kernel knows out of the bounding set (PR_CAPBSET_DROP, prctl(2))."""
    drop, capability = _libc.prctl, 0
    while drop(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if capability == 0 or _c.get_errno() != errno.EINVAL:  # EINVAL: one past the kernel's last
        _check(-1, "bounding set")


def clear_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets (capset(2), version 3)."""
    header, sets = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _syscall(_SYS_CAPSET, header, sets, subject="capset")


class SeccompProgram:
    """A BPF program, an array of struct sock_filter, laid out in memory once for all forks."""

    def __init__(self, program: bytes) -> None:
        self._code = _c.create_string_buffer(program, len(program))
        fields = struct.pack("HxxxxxxP", len(program) // 8, _c.addressof(self._code))
        self._fprog = _c.create_string_buffer(fields)

    def install(self) -> None:
        """Filter the system calls of this thread, for good (seccomp(2))."""
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, _c.addressof(self._fprog))


def openat2(dir_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """Open beneath dir_fd with resolution rules; returns a descriptor (openat2(2))."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall(_SYS_OPENAT2, _int(dir_fd), path, how, _c.c_size_t(len(how)), subject=path)


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor from first to last (close_range(2))."""
    _syscall(_SYS_CLOSE_RANGE, _c.c_uint(first), _c.c_uint(last), _c.c_uint(0), subject="close_range")


def clone3(flags: int, cgroup_fd: int | None) -> tuple[int, int]:
    """Fork with new namespaces; (0, -1) in the child, (pid, pidfd) in the parent (clone3(2)).

    The interpreter's hooks run as in os.fork. glibc's cached thread id stays the parent's, so the child must
    not use raise(3) or abort(3); a later os.fork corrects it in the grandchild.
    """
    pidfd = _c.c_int(-1)
    flags |= CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd is not None else 0)
    sigchld = 17
    into = cgroup_fd if cgroup_fd is not None else 0
    args = struct.pack("11Q", flags, _c.addressof(pidfd), 0, 0, sigchld, 0, 0, 0, 0, 0, into)
    _c.pythonapi.PyOS_BeforeFork()
    pid = _held.syscall(_long(_SYS_CLONE3), args, _c.c_size_t(len(args)))
    if pid == 0:
        _c.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    _c.pythonapi.PyOS_AfterFork_Parent()
    return _check(pid, "clone3"), pidfd.value


def landlock_abi() -> int:
    """Query the kernel's Landlock ABI version, 0 without Landlock (landlock_create_ruleset(2))."""
    try:
        return _syscall(_SYS_LANDLOCK_CREATE, None, _c.c_size_t(0), _c.c_uint(1))
    except OSError:
        return 0


def landlock_create_ruleset(fs: int, scoped: int, abi: int) -> int:
    """Create a ruleset that handles the given rights; returns its descriptor (landlock_create_ruleset(2))."""
    attr = struct.pack("QQQ", fs, 0, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    return _syscall(_SYS_LANDLOCK_CREATE, attr, _c.c_size_t(len(attr)), _c.c_uint(0), subject="ruleset")


def landlock_add_path(ruleset: int, path_fd: int, rights: int) -> None:
    """Allow rights beneath path_fd (landlock_add_rule(2), LANDLOCK_RULE_PATH_BENEATH)."""
    _syscall(_SYS_LANDLOCK_ADD, _int(ruleset), _int(1), struct.pack("=Qi", rights, path_fd), _c.c_uint(0))


def landlock_restrict_self(ruleset: int, flags: int) -> None:
    """Enforce the ruleset on this thread for good (landlock_restrict_self(2))."""
    _syscall(_SYS_LANDLOCK_RESTRICT, _int(ruleset), _c.c_uint(flags), subject="landlock")


def loopback_up() -> None:
    """Bring `lo` of this thread's network namespace up (netdevice(7), SIOCSIFFLAGS)."""
    siocsifflags, iff_up, af_inet, sock_dgram = 0x8914, 1, 2, 2
    fd = _check(_libc.socket(af_inet, sock_dgram | os.O_CLOEXEC, 0), "socket")
    try:
        request = _c.create_string_buffer(struct.pack("16sH22x", b"lo", iff_up))
        _check(_libc.ioctl(fd, siocsifflags, _c.addressof(request)), "lo")
    finally:
        os.close(fd)


def signalfd(number: int) -> int:
    """A descriptor to read a blocked signal from (signalfd(2))."""
    mask = struct.pack("=Q", 1 << number - 1).ljust(128, b"\0")  # a sigset_t of glibc
    return _check(_libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK), "signalfd")


def collapse(start: int, end: int) -> None:
    """Move an address range into huge pages now (MADV_COLLAPSE, madvise(2), Linux 6.1)."""
    huge, madv_collapse = 1 << 21, 25
    start, end = -(-start // huge) * huge, end // huge * huge
    if start < end:
        _check(_libc.madvise(start, end - start, madv_collapse), "madvise")


def own_one_page(address: int, length: int, protection: int) -> None:
    """Copy the first page of a private mapping by writing to it what it holds (mprotect(2)).

    protection: the mapping's, as PROT_READ | …, which is restored afterwards.
    """
    _check(_libc.mprotect(address, length, protection | PROT_WRITE), "mprotect")
    try:
        _c.memmove(address, _c.string_at(address, 1), 1)
    finally:
        _check(_libc.mprotect(address, length, protection), "mprotect")
