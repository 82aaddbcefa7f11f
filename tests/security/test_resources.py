"""Kernel resources shared by the machine or a user are charged to the job, or counted for its slot alone."""

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_executor.cgroups import probe
from sandrun_shared.jobs import Limits, Verdict
from support.attempts import attempt
from support.executor import PATIENCE, ExecutorProcess
from support.probes import PRELUDE

MIB = 1 << 20
LIMITS = Limits(wall_seconds=60.0 * PATIENCE, memory_bytes=192 * MIB)

# What takes memory of the kernel's, and how much of it in bytes the job's cgroup must count at least.
CHARGED = {
    "pipes": (
        "keep = []\n"
        "for n in range(8):\n"
        " keep.append(os.pipe()); os.set_blocking(keep[-1][1], False)\n"
        " fcntl.fcntl(keep[-1][1], fcntl.F_SETPIPE_SZ, 1 << 20); os.write(keep[-1][1], bytes(1 << 20))\n",
        7 * MIB,
    ),
    "unix sockets": (
        "keep = [socket.socketpair() for n in range(40)]\n"
        "for near, far in keep:\n"
        " near.setblocking(False)\n"
        " while works(near.send, bytes(32 << 10)): pass\n",
        4 * MIB,
    ),
    "datagrams of unix sockets": (
        "keep = [socket.socketpair(type=socket.SOCK_DGRAM) for n in range(60)]\n"
        "for near, far in keep:\n"
        " near.setblocking(False)\n"
        " while works(near.send, bytes(16 << 10)): pass\n",
        4 * MIB,
    ),
    "shared memory": (
        "libc.shmat.restype = ctypes.c_void_p\n"
        "for n in range(8): ctypes.memset(libc.shmat(libc.shmget(0, 1 << 20, 0o1600), None, 0), 1, 1 << 20)\n",
        7 * MIB,
    ),
    "semaphores": ("for n in range(8): assert libc.semget(0, 16000, 0o1600) >= 0\n", 6 * MIB),
    "messages": (
        "for n in range(300):\n"
        " queue = libc.msgget(0, 0o1600)\n"
        " while call(69, queue, struct.pack('q', 1) + bytes(8000), 8000, 0o4000) == 0: pass\n",
        4 * MIB,
    ),
    "files in memory": ("os.write(os.memfd_create('x'), bytes(8 << 20))\n", 7 * MIB),
    "locked memory": (
        "import mmap\nm = mmap.mmap(-1, 6 << 20)\n"
        "assert call(149, ctypes.byref(ctypes.c_char.from_buffer(m)), ctypes.c_size_t(6 << 20)) == 0\n",
        5 * MIB,
    ),
    "inotify watches": (
        "fd = libc.inotify_init()\n"
        "for n in range(4000):\n"
        " os.close(os.open(f'/tmp/{n}', os.O_CREAT)); assert libc.inotify_add_watch(fd, f'/tmp/{n}'.encode(), 1) > 0\n",
        3 * MIB,
    ),
    "inotify events": (
        "libc.inotify_add_watch(libc.inotify_init(), b'/tmp', 0xFFF)\n"
        # Three events each, of the 16,384 that a queue holds.
        "for n in range(5400): os.close(os.open(f'/tmp/{n % 2}' + 'x' * 200, os.O_CREAT))\n",
        2 * MIB,
    ),
    "epoll watches": (
        "import select\n"
        "pipes = [os.pipe() for n in range(200)]\npolls = [select.epoll() for n in range(100)]\n"
        "for poll in polls:\n for near, far in pipes: poll.register(near)\n",
        3 * MIB,
    ),
    # Kept back by SPLICE_F_MORE, which no filter can refuse of sendfile(2): the pages are the pipe's, uncopied.
    "datagrams kept back": (
        "far, keep = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), []\n"
        "far.bind(('127.0.0.1', 0)); far.setblocking(False)\n"
        "for n in range(200):\n"
        " near, left = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 60000\n"
        " near.connect(far.getsockname()); keep.append(near)\n"
        " source, sink = os.pipe(); os.write(sink, bytes(left))\n"
        " while left: left -= os.splice(source, near.fileno(), left, flags=os.SPLICE_F_MORE)\n"
        " os.close(source); os.close(sink)\n"
        "assert not works(far.recv, 1)\n",
        10 * MIB,
    ),
    "names of files that are not there": (
        "for n in range(16000): os.path.exists(f'/usr/{n}' + 'x' * 200)\n", 4 * MIB
    ),
}  # fmt: skip


def peak(executor: ExecutorProcess, program: str) -> int:
    """The most memory that was charged to a job which runs the program."""
    result = executor.run_job(PRELUDE + "import fcntl\n" + program, limits=LIMITS)
    result.ok()
    return result.outcome.memory_peak_bytes


@pytest.fixture(scope="module")
def idle_peak(executor: ExecutorProcess) -> int:
    """What a job that does nothing is charged."""
    return peak(executor, "")


@pytest.mark.parametrize("name", CHARGED)
def test_charged_to_the_job(executor: ExecutorProcess, idle_peak: int, name: str) -> None:
    program, least = CHARGED[name]
    assert peak(executor, program) - idle_peak >= least


# Buffers of the loopback: without a bound of the job's they come out of what the machine has for all.
SMALL = Limits(wall_seconds=60.0 * PATIENCE, memory_bytes=32 * MIB)
BUFFERS = {
    "tcp": (
        "total, keep, server = 0, [], socket.create_server(('127.0.0.1', 0))\n"
        "for n in range(30):\n"
        " near = socket.socket(); near.setsockopt(1, 7, 1 << 20); near.connect(server.getsockname())\n"
        " keep += [near, server.accept()[0]]; near.setblocking(False)\n"
        " try:\n"
        "  while total < 48 << 20: total += near.send(bytes(32 << 10))\n"
        " except OSError: pass\n"
    ),
    "udp": (
        "total, keep, near = 0, [], socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for n in range(24):\n"
        " far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); far.setsockopt(1, 8, 1 << 20)\n"
        " far.bind(('127.0.0.1', 0)); keep.append(far)\n"
        " for k in range(64): near.sendto(bytes(32 << 10), far.getsockname())\n"
        "for far in keep:\n"
        " try:\n"
        "  while True: total += len(far.recv(1 << 16, socket.MSG_DONTWAIT))\n"
        " except OSError: pass\n"
    ),
}


def buffered(executor: ExecutorProcess, kind: str) -> int:
    """How many bytes a job could leave unread on its loopback; 0 when that ended it."""
    result = executor.run_job(PRELUDE + BUFFERS[kind] + "print(total)", limits=SMALL)
    if result.outcome.verdict is Verdict.memory_limit:
        return 0
    return int(result.ok())


@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_of_sockets_are_bounded(executor: ExecutorProcess, kind: str) -> None:
    assert buffered(executor, kind) < SMALL.memory_bytes


@pytest.fixture(scope="module")
def without_socket_buffers(executor: ExecutorProcess) -> Iterator[ExecutorProcess]:
    with ExecutorProcess(without=["socket_buffers"], parked=1) as running:
        yield running


@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_of_sockets_without_the_layer(without_socket_buffers: ExecutorProcess, kind: str) -> None:
    is_v1 = probe.probe("test").version == 1
    assert (buffered(without_socket_buffers, kind) >= SMALL.memory_bytes) == is_v1


# Counted for a user: a job has one of its slot's, so one job that takes all leaves the others theirs.
COUNTED = {
    "inotify instances": (
        "fds = []\nwhile (fd := libc.inotify_init()) >= 0: fds.append(fd)\ntaken = ctypes.get_errno() == errno.EMFILE",
        "verdict(libc.inotify_init() < 0)",
    ),
    "sizes of pipes": (
        "import fcntl\npipes = []\n"
        "def grow():\n pipes.append(os.pipe()); fcntl.fcntl(pipes[-1][1], fcntl.F_SETPIPE_SZ, 1 << 20)\n"
        "while len(pipes) < 500 and works(grow): pass\ntaken = len(pipes) < 500",
        "import fcntl\nverdict(not works(fcntl.fcntl, os.pipe()[1], fcntl.F_SETPIPE_SZ, 1 << 20))",
    ),
    "timers and signals": (
        "timer = ctypes.c_int()\nwhile (code := call(222, 1, None, ctypes.byref(timer))) == 0: pass\n"
        "taken = code == errno.EAGAIN",
        "verdict(call(222, 1, None, ctypes.byref(ctypes.c_int())) != 0)",
    ),
    "semaphore sets": (
        "while libc.semget(0, 1, 0o1600) >= 0: pass\ntaken = ctypes.get_errno() == errno.ENOSPC",
        "verdict(libc.semget(0, 1, 0o1600) < 0)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_what_one_job_uses_up_others_still_have(executor: ExecutorProcess, name: str) -> None:
    take, ask = COUNTED[name]
    hold = "\nprint('TAKEN', taken, flush=True)\ntime.sleep(600)"
    greedy = executor.start_job(PRELUDE + take + hold, limits=LIMITS)
    try:
        greedy.printed(b"TAKEN True\n")
        assert attempt(executor, ask).startswith("CONTAINED")
    finally:
        greedy.hang_up()


# Writing to the host's disks.

_CACHESTAT = 451  # cachestat(2), Linux 6.5
_libc = ctypes.CDLL(None, use_errno=True)


def dirty_pages(fd: int) -> int:
    """How many pages of the file are not yet written."""
    everything, found = struct.pack("QQ", 0, 0), ctypes.create_string_buffer(40)
    if _libc.syscall(_CACHESTAT, fd, everything, found, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(struct.unpack("5Q", found.raw)[1])


def synced(executor: ExecutorProcess, file: Path) -> bool:
    """Whether what was written to a file of the host is on its disk after a job's sync(2)."""
    with file.open("wb") as opened:
        for _ in range(5):  # the kernel may write it by itself meanwhile
            opened.write(os.urandom(1 << 16))
            opened.flush()
            assert dirty_pages(opened.fileno()) > 0
            assert executor.run_job("import os; os.sync(); print('done')").ok() == b"done\n"
            if dirty_pages(opened.fileno()) > 0:
                return False
    return True


@pytest.fixture
def file_on_a_disk() -> Iterator[Path]:
    path = Path(f"/var/tmp/sandrun-test-{os.getpid()}")  # tmp_path may be in memory
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (6, 5), reason="the kernel has no cachestat(2)"
)
def test_sync_leaves_the_disks_of_the_host_alone(executor: ExecutorProcess, file_on_a_disk: Path) -> None:
    assert not synced(executor, file_on_a_disk)
    with ExecutorProcess(without=["seccomp"], parked=1) as weakened:
        assert synced(weakened, file_on_a_disk)
