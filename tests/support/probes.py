"""Programs that try to escape a sandbox or to see what is not theirs, and the layers that stop them."""

import os
from dataclasses import dataclass
from itertools import combinations

from sandrun_sandbox import root

PRELUDE = """
import ctypes, errno, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    'Zero or an errno.'
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *arguments) < 0 else 0
def reached(number, *arguments):
    'Whether the kernel itself looked at the call.'
    return call(number, *arguments) not in (errno.EPERM, errno.ENOSYS)
def status(name):
    return next(line.split()[1:] for line in open('/proc/self/status') if line.startswith(name + ':'))
def works(action, *arguments, **options):
    try:
        action(*arguments, **options)
        return True
    except OSError as error:
        print(error, file=sys.stderr)
        return False
def verdict(escaped, what=''):
    print('ESCAPED' if escaped else 'CONTAINED', what, flush=True)
"""


@dataclass(frozen=True)
class Probe:
    """without: the layers that must all be off for the probe to succeed; several if each alone stops it."""

    program: str
    without: tuple[str, ...]


_SECCOMP = ("seccomp",)
_PRIVILEGED = ("identity", "user_namespace", "capabilities")
# Before Linux 6.11 the kernel itself wants a privilege for open_by_handle_at(2).
_RELEASE = tuple(int(part) for part in os.uname().release.split(".")[:2])
_HANDLE = _SECCOMP if _RELEASE >= (6, 11) else (*_SECCOMP, *_PRIVILEGED)
_USER, _NS = 0x10000000, 0x20000

PROBES = {
    # System calls.
    "unshare_user": Probe(f"verdict(reached(272, {_USER}))", _SECCOMP),
    "clone_user": Probe(
        f"pid = libc.syscall(56, ctypes.c_ulong({_USER} | 17), None, None, None, None)\n"
        "if pid == 0: os._exit(0)\nverdict(pid > 0)",
        _SECCOMP,
    ),
    "clone3_user": Probe(
        "arguments = struct.pack('11Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)\n"
        "pid = libc.syscall(435, arguments, 88)\nif pid == 0: os._exit(0)\nverdict(pid > 0)",
        _SECCOMP,
    ),
    "mount": Probe(
        f"call(272, {_USER | _NS})\nverdict(call(165, b'x', b'/tmp', b'tmpfs', 0, None) == 0)",
        ("seccomp", "landlock"),
    ),
    "umount": Probe("verdict(call(166, b'/proc', 2) == 0)", ("seccomp", "landlock", *_PRIVILEGED)),
    "new_mount_api": Probe("verdict(reached(430, b'nonsense', 0) or reached(428, -1, b'', 0))", _SECCOMP),
    "setns": Probe("verdict(reached(308, -1, 0))", _SECCOMP),
    "ptrace": Probe(
        "pid = os.fork()\nif pid == 0:\n time.sleep(20)\nverdict(call(101, 0x4206, pid, None, None) == 0)",
        _SECCOMP,
    ),
    "process_vm_readv": Probe("verdict(reached(310, os.getpid(), None, 0, None, 0, 0))", _SECCOMP),
    "pidfd_getfd": Probe("verdict(call(438, os.pidfd_open(os.getpid()), 0, 0) == 0)", _SECCOMP),
    "keyring": Probe("verdict(call(250, 0, -3, 1) == 0)", _SECCOMP),
    "add_key": Probe("verdict(reached(248, b'user', b'probe', b'x', 1, -2))", _SECCOMP),
    "bpf": Probe("verdict(reached(321, 7, None, 16))", _SECCOMP),
    "io_uring": Probe("verdict(reached(425, 1, None))", _SECCOMP),
    "userfaultfd": Probe("verdict(call(323, 1) == 0)", _SECCOMP),
    "perf_event": Probe("verdict(reached(298, None, 0, -1, -1, 0))", _SECCOMP),
    "open_by_handle": Probe("verdict(reached(304, -100, None, 0))", _HANDLE),
    "name_to_handle": Probe("verdict(reached(303, -100, b'/', None, None, 0))", _SECCOMP),
    "seccomp_again": Probe("verdict(reached(317, 1, 0, None))", _SECCOMP),
    "personality": Probe("verdict(call(135, 0x40000) == 0)", _SECCOMP),
    "terminal_injection": Probe("verdict(call(16, 0, 0x5412, b'x') != errno.EPERM)", _SECCOMP),
    "terminal_injection_in_high_bits": Probe(
        "verdict(call(16, 0, ctypes.c_ulong(0x100005412), b'x') != errno.EPERM)", _SECCOMP
    ),
    "unlisted_ioctl": Probe(
        "fd = os.open('x', os.O_CREAT | os.O_RDWR)\n"
        "verdict(call(16, fd, ctypes.c_ulong(0x80086601), ctypes.create_string_buffer(8)) == 0)",
        _SECCOMP,
    ),
    "i386": Probe(
        "import mmap, signal\n"
        "if os.fork() == 0:\n"
        " code = mmap.mmap(-1, 4096, prot=7)\n"
        " code.write(bytes.fromhex('b814000000cd80c3'))\n"  # mov eax, 20 (getpid); int 0x80; ret
        " run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))\n"
        " os._exit(run() == os.getpid())\n"
        "verdict(os.wait()[1] == 256 or reached(0x40000000 | 39))",
        _SECCOMP,
    ),
    "sockets_of_other_kinds": Probe(
        "def refused(*kind):\n"
        " try:\n  socket.socket(*kind)\n"
        " except OSError as error:\n  return error.errno == errno.EAFNOSUPPORT\n"
        "kinds = [(17, 3, 0), (40, 1, 0), (38, 5, 0), (2, 3, 1), (10, 3, 58), (2, 1, 132)]\n"
        "let = [kind for kind in kinds if not refused(*kind)]\nverdict(let, let)",
        _SECCOMP,
    ),
    # What the machine has once for everybody. Never more than one filter: thousands have locked up a kernel.
    "socket_filter": Probe(
        "program = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 1))\n"
        "filter = struct.pack('HxxxxxxP', 1, ctypes.addressof(program))\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nverdict(works(s.setsockopt, 1, 26, filter))",
        _SECCOMP,
    ),
    "unlisted_socket_options": Probe(
        # SO_ATTACH_*, SO_TIMESTAMP*, SO_ZEROCOPY, TCP_ULP, TCP_REPAIR, TCP_MD5SIG, IP_RECVERR, multicast groups,
        # IPV6_2292PKTOPTIONS, IPV6_FLOWLABEL_MGR, UDP_CORK, UDP_SEGMENT. Nothing is attached: the length is 0.
        "options = [(1, n) for n in (29, 35, 37, 50, 51, 52, 60, 61, 63, 65)] + [(6, n) for n in (13, 14, 19, 31, 37)]\n"
        "options += [(0, n) for n in (4, 11, 21, 35, 41, 42, 48)] + [(41, n) for n in (6, 20, 25, 32, 42, 48, 73)]\n"
        "options += [(17, 1), (17, 103)]\n"
        "sockets = [socket.socket(f, k) for f in (2, 10) for k in (1, 2)]\n"
        "let = [o for s in sockets for o in options if call(54, s.fileno(), *o, None, 0) != errno.ENOPROTOOPT]\n"
        "verdict(let, let)",
        _SECCOMP,
    ),
    "datagrams_kept_back": Probe(
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.connect(('127.0.0.1', 9))\n"
        "verdict(works(s.send, b'x', 0x8000) or works(s.sendmsg, [b'x'], [], 0x8000))",
        _SECCOMP,
    ),
    "counters_of_sockets": Probe(
        "s = socket.socket()\nverdict(works(s.getsockopt, 1, 57, 8) or works(s.getsockopt, 1, 71, 8))",
        _SECCOMP,
    ),
    "netlink": Probe(
        "verdict(works(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0) or works(socket.if_nameindex))",
        _SECCOMP,
    ),
    "asynchronous_io": Probe(
        "verdict(call(206, 1, ctypes.byref(ctypes.c_ulong())) != errno.ENOSYS)", _SECCOMP
    ),
    "huge_pages": Probe(
        # With a length of 0, which the kernel calls invalid; a file of huge pages holds none yet.
        "codes = [call(9, None, 0, 1, 0x40022, -1, 0), call(319, b'x', 4), call(29, 0, 0, 0o5600)]\n"
        "verdict(codes != [errno.ENOMEM] * 3, codes)",
        _SECCOMP,
    ),
    "files_of_others_out_of_the_cache": Probe("verdict(call(221, -1, 0, 0, 4) == errno.EBADF)", _SECCOMP),
    "seldom_used_calls": Probe(
        "verdict(reached(278, -1, None, 0, 0) or reached(451, -1, None, None, 0) or reached(136, 0, None))",
        _SECCOMP,
    ),
    "message_queues": Probe("verdict(reached(240, b'x', 0o102, 0o600, None))", _SECCOMP),
    "timers": Probe(
        "if os.fork() == 0:\n"
        " timer = ctypes.c_int()\n"
        " os._exit(all(call(222, 1, None, ctypes.byref(timer)) == 0 for n in range(1025)))\n"
        "verdict(os.wait()[1])",
        ("rlimits",),
    ),
    "chroot": Probe("verdict(works(os.chroot, '/tmp'))", ("seccomp", "capabilities")),
    "set_host_name": Probe("verdict(works(socket.sethostname, 'mine'))", ("seccomp", *_PRIVILEGED)),
    "make_device": Probe("verdict(works(os.mknod, '/tmp/null', 0o20666, os.makedev(1, 3)))", _PRIVILEGED),
    # Who the job is.
    "user_id": Probe("verdict(os.getresuid() != (1000,) * 3 or os.getresgid() != (1000,) * 3)", _PRIVILEGED),
    "groups": Probe("verdict(works(os.setgroups, [0]) or os.getgroups())", _PRIVILEGED),
    "id_map": Probe(
        "maps = [open(f'/proc/self/{name}_map').read().split() for name in ('uid', 'gid')]\n"
        "verdict(any(m[0] != '1000' or m[2] != '1' or m[1] in ('0', '1000') for m in maps), maps)",
        ("user_namespace", "capabilities"),
    ),
    "capability_sets": Probe(
        "verdict(any(int(status('Cap' + name)[0], 16) for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')))",
        ("capabilities",),
    ),
    "securebits": Probe("verdict(libc.prctl(27, 0, 0, 0, 0) != 0xEF)", ("capabilities",)),
    "seccomp_mode": Probe("verdict(status('Seccomp') != ['2'])", _SECCOMP),
    "no_new_privs": Probe("verdict(status('NoNewPrivs') != ['1'])", ("no_new_privs", "seccomp", "landlock")),
    "setuid_program": Probe(
        # A set-user-id program that cannot go on, of a user who is not root: the pipe that it prints to is full.
        "import subprocess\n"
        "r, w = os.pipe(); os.set_blocking(w, False)\n"
        "while works(os.write, w, bytes(4096)): pass\n"
        "os.set_blocking(w, True)\n"
        "program = subprocess.Popen(['/usr/bin/mount'], stdout=w, user=1000)\n"
        "def effective():\n"
        " try:\n  return next(l.split()[2] for l in open(f'/proc/{program.pid}/status') if l.startswith('Uid'))\n"
        " except FileNotFoundError: return '0'\n"
        "for n in range(20):\n time.sleep(0.005)\n"
        "assert os.stat('/usr/bin/mount').st_mode & 0o4000 and program.poll() is None\n"
        "verdict(effective() != '1000', effective()); program.kill()",
        ("no_new_privs", "seccomp", "landlock", "user_namespace", "capabilities", "nosuid"),
    ),
    "session": Probe("verdict(os.getsid(0) != os.getpid() or os.getpgrp() != os.getpid())", ("session",)),
    "limits": Probe(
        "import resource as r\n"
        "hard = [r.getrlimit(k)[1] for k in (r.RLIMIT_MSGQUEUE, r.RLIMIT_SIGPENDING, r.RLIMIT_RTPRIO, r.RLIMIT_MEMLOCK)]\n"
        "verdict(hard != [0, 1024, 0, 8 << 20] or r.getrlimit(r.RLIMIT_CORE)[1] > 1, hard)",
        ("rlimits",),
    ),
    "oom_score": Probe("verdict(open('/proc/self/oom_score_adj').read() != '1000\\n')", ("oom_score",)),
    # What it sees.
    "first_process": Probe("verdict('1' in os.listdir('/proc') or os.path.exists('/proc/1'))", ("hidepid",)),
    "kill_first_process": Probe("verdict(works(os.kill, 1, 0))", ("landlock", *_PRIVILEGED)),
    "process_id": Probe("verdict(os.readlink('/proc/self') != '2' or os.getppid() != 1)", ("pid",)),
    "descriptors": Probe(
        "fds = [n for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n) or n == '77']\n"
        "verdict(set(fds) - {'0', '1', '2'}, fds)",
        ("close_range",),
    ),
    "environment": Probe(
        "names = {'PATH', 'HOME', 'USER', 'LOGNAME', 'LANG', 'TMPDIR', 'PYTHONUNBUFFERED'}\n"
        "names |= {name + '_NUM_THREADS' for name in ('OMP', 'OPENBLAS', 'MKL')}\n"
        "first = {v.split('=')[0] for v in open('/proc/self/environ').read().split('\\0') if v}\n"
        "verdict(set(os.environ) != names or first - names - {'LC_CTYPE'}, set(os.environ))",
        ("environment",),
    ),
    "masked_proc": Probe(
        f"MASKED = {root.MASKED}\n"
        "names = 'kallsyms timer_list slabinfo interrupts iomem ioports cmdline crypto devices diskstats keys'\n"
        "names += ' key-users kmsg locks misc modules partitions softirqs swaps vmstat zoneinfo buddyinfo cgroups'\n"
        "seen = []\n"
        "for name in names.split():\n"
        " try:\n  fd = os.open('/proc/' + name, os.O_RDONLY | os.O_NONBLOCK)\n  seen += [name] * bool(os.read(fd, 10))\n"
        " except OSError: pass\n"
        "seen += [n for n in MASKED if os.path.isdir('/proc/' + n) and os.listdir('/proc/' + n)]\n"
        "counts = [l.split() for l in open('/proc/stat')]\n"
        "seen += ['stat'] * any(c[0] not in ('btime', 'procs_running') and set(c[1:]) != {'0'} for c in counts)\n"
        "seen += [p for p in ('/proc/sys/kernel/random/boot_id', '/proc/sys/kernel/hostname') if os.path.exists(p)]\n"
        "verdict(seen, seen)",
        ("mask_proc",),
    ),
    "control_group_path": Probe(
        "lines = open('/proc/self/cgroup').read().split()\nverdict(not all(l.endswith(':/') for l in lines), lines)",
        ("cgroup",),
    ),
    "files_of_the_host": Probe(
        "paths = ['/etc/shadow', '/etc/hostname', '/etc/resolv.conf', '/root', '/boot', '/run', '/var/lib', '/sys',"
        " '/mnt', '/opt', '/srv', '/dev/kmsg', '/dev/mem', '/dev/pts', '/dev/tty', '/dev/fuse', '/dev/net/tun',"
        " '/old', '/image', '/stage', '/.dockerenv', '/media', '/proc/1/root', '/usr/src', '/sys/fs/cgroup']\n"
        "seen = [p for p in paths if os.path.lexists(p)]\nverdict(seen, seen)",
        ("image",),
    ),
    "software_of_the_host": Probe("verdict(os.path.exists('/usr/local'))", ("hide_local",)),
    "writing_the_system": Probe(
        "seen = []\n"
        "for folder in ('/', '/etc', '/usr', '/usr/bin', '/var', '/home', '/dev', '/usr/lib/python3'):\n"
        " seen += [folder] * works(lambda: os.close(os.open(folder + '/probe', os.O_CREAT | os.O_WRONLY)))\n"
        " seen += [folder] * works(os.chmod, folder, 0o777)\n"
        "seen += ['passwd'] * works(lambda: open('/etc/passwd', 'a'))\nverdict(seen, seen)",
        ("read_only_root", "landlock", *_PRIVILEGED),
    ),
    "changing_proc": Probe(
        "create = os.O_CREAT | os.O_WRONLY\n"
        "verdict(works(os.chmod, '/proc', 0o777) or works(lambda: os.close(os.open('/proc/probe', create))))",
        _PRIVILEGED,
    ),
    "mount_flags": Probe(
        "lines = [l.split() for l in open('/proc/self/mountinfo')]\n"
        "bad = [l[4] for l in lines if 'nosuid' not in l[5].split(',')]\n"
        "verdict(bad, bad)",
        ("nosuid",),
    ),
    "device_nodes": Probe(
        # Of the mounts on which nodes open, each is one node: of the machine's own, or what masks a file.
        "import stat\n"
        "lines = [l.split() for l in open('/proc/self/mountinfo')]\n"
        "open_ones = [l for l in lines if 'nodev' not in l[5].split(',')]\n"
        "nodes = {os.makedev(1, n) for n in (3, 5, 7, 8, 9)}\n"
        "bad = [l[4] for l in open_ones if not stat.S_ISCHR(os.stat(l[4]).st_mode) or os.stat(l[4]).st_rdev not in nodes]\n"
        "bad += [l[4] for l in open_ones if 'noexec' not in l[5].split(',') or 'ro' not in l[5].split(',')]\n"
        "verdict(bad or not open_ones, bad)",
        ("nodev",),
    ),
    "network_of_the_machine": Probe(
        "pid = os.getpid()\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(20)\n"
        "folders = ['/proc/net', '/proc/self/net', '/proc/thread-self/net', f'/proc/{child}/net']\n"
        "folders += [f'/proc/{p}/task/{p}/net' for p in (pid, child)]\n"
        "names = ('sockstat', 'sockstat6', 'softnet_stat', 'protocols', 'stat/rt_cache', 'stat/arp_cache')\n"
        "assert open('/proc/net/dev').read() and open(f'/proc/{child}/net/tcp').read()\n"
        "seen = [f'{f}/{n}' for f in folders for n in names if works(open, f'{f}/{n}')]\n"
        "verdict(seen, seen[:3])",
        ("network_modes",),
    ),
}

# Layers that have nothing to do with each other. Each is off in two executors, and no other layer in both: what
# a probe does in the two is due to its own.
_APART = (
    *("rlimits", "session", "oom_score", "hidepid", "close_range", "environment", "mask_proc", "cgroup"),
    *("image", "hide_local", "nosuid", "nodev", "network_modes", "capabilities"),
)
_PLACES = dict(zip(_APART, combinations(range(6), 2), strict=False))
_WITHOUT_SOME = tuple(tuple(layer for layer in _APART if number in _PLACES[layer]) for number in range(6))
# Layers that stand one behind the other: a probe gets through in the first executor that is without all that it
# names, and in none that is without some of them.
_WITHOUT_MORE = (
    _SECCOMP,
    _PRIVILEGED,
    (*_SECCOMP, "landlock", "no_new_privs"),
    (*_SECCOMP, "landlock", *_PRIVILEGED, "no_new_privs", "nosuid", "read_only_root"),
    ("pid",),  # without it no process id is what it was
)


def _expected() -> dict[tuple[str, ...], dict[str, str]]:
    expected: dict[tuple[str, ...], dict[str, str]] = {
        layers: {} for layers in (*_WITHOUT_SOME, *_WITHOUT_MORE)
    }
    for name, probe in PROBES.items():
        wanted = set(probe.without)
        if wanted <= set(_APART):
            for layers in _WITHOUT_SOME:
                if wanted <= set(layers):
                    expected[layers][name] = "ESCAPED"
            continue
        for layers in _WITHOUT_MORE:
            if wanted <= set(layers):
                expected[layers][name] = "ESCAPED"
                break
            if wanted & set(layers):
                expected[layers][name] = "CONTAINED"
    return expected


WITHOUT = _expected()  # by the layers that are off in one executor, what each probe says there
