"""Concurrent jobs cannot detect each other; without the layer between them, they can."""

import contextlib
from collections.abc import Iterator

import pytest

from support.attempts import LIMITS, attempt
from support.executor import ExecutorProcess
from support.probes import PRELUDE

_CONNECTIONS = 100
_HOLDER = (
    f"CONNECTIONS = {_CONNECTIONS}"
    + """
import fcntl, socket
for path in '/tmp/secret', '/dev/shm/secret', '/var/tmp/secret':
    open(path, 'w').write('secret'); os.chmod(path, 0o666)
abstract = socket.socket(socket.AF_UNIX); abstract.bind('\\0neighbour'); abstract.listen()
server = socket.create_server(('127.0.0.1', 7777), backlog=200)
connections = [socket.create_connection(('127.0.0.1', 7777)) for _ in range(CONNECTIONS)]
lock = os.open('/usr/bin/env', os.O_RDONLY); fcntl.flock(lock, fcntl.LOCK_EX)
null = os.open('/dev/null', os.O_RDWR)
try: fcntl.flock(null, fcntl.LOCK_EX)
except OSError: pass
print('up', flush=True)
while True:
    os.close(os.open('/usr/bin/env', os.O_RDONLY)); time.sleep(0.01)
"""
)
PROBES = {
    "files": (
        "seen = [p for p in ('/tmp/secret', '/dev/shm/secret', '/var/tmp/secret') if os.path.exists(p)]\n"
        "verdict(seen, seen)",
        ("own_tmpfs",),
    ),
    "abstract socket": (
        "verdict(works(socket.socket(socket.AF_UNIX).connect, '\\0neighbour'))",
        ("network", "landlock"),
    ),
    "loopback": ("verdict(works(socket.create_connection, ('127.0.0.1', 7777), 5))", ("network",)),
    "number of connections": (
        "paths = [f'/proc/self/task/{os.getpid()}/net/sockstat', '/proc/net/sockstat']\n"
        "lines = [l.split() for p in paths if works(open, p) for l in open(p)]\n"
        f"verdict(any(l[0] == 'TCP:' and int(l[8]) >= {_CONNECTIONS} for l in lines), lines)",
        ("network_modes",),
    ),
    "file lock": (
        "import fcntl\nfd = os.open('/usr/bin/env', os.O_RDONLY)\n"
        "verdict(not works(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB))",
        ("overlay",),
    ),
    "watching a file": (
        "import select\nfd = libc.inotify_init1(0)\n"
        "watch = libc.inotify_add_watch(fd, b'/usr/bin/env', 0xFFF) if fd >= 0 else -1\n"
        "verdict(watch >= 0 and select.select([fd], [], [], 1)[0])",
        ("overlay",),
    ),
    "signals": (
        "seen = [n for n in range(2, 2000) if n not in (os.getpid(), os.getppid()) and works(os.kill, n, 0)]\n"
        "verdict(seen, seen[:5])",
        ("pid", "landlock", "identity", "user_namespace", "capabilities"),
    ),
}


@contextlib.contextmanager
def _neighbour(executor: ExecutorProcess) -> Iterator[None]:
    job = executor.start_job(PRELUDE + _HOLDER, limits=LIMITS).printed(b"up")
    try:
        yield
    finally:
        job.hang_up()


@pytest.mark.parametrize("name", PROBES)
def test_a_neighbour_is_not_noticed(executor: ExecutorProcess, name: str) -> None:
    with _neighbour(executor):
        assert attempt(executor, PROBES[name][0]).startswith("CONTAINED")


@pytest.mark.parametrize("name", PROBES)
def test_a_neighbour_is_noticed_without_the_layer(executor: ExecutorProcess, name: str) -> None:
    program, without = PROBES[name]
    with ExecutorProcess(without=without, parked=2) as weakened, _neighbour(weakened):
        assert attempt(weakened, program).startswith("ESCAPED")


def test_slots_have_user_ids_of_their_own(executor: ExecutorProcess) -> None:
    program = "print(open('/proc/self/uid_map').read().split()[1], flush=True); time.sleep(20)"
    jobs = [executor.start_job(PRELUDE + program, limits=LIMITS).printed(b"\n") for _ in range(4)]
    ids = {bytes(job.logs[1]) for job in jobs}
    for job in jobs:
        job.hang_up()
    assert len(ids) == 4
