"""A job shares no namespace with the machine and reaches nothing there; without a layer, it does."""

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Iterator

import pytest

from support import machine
from support.attempts import attempt
from support.executor import ExecutorProcess

KINDS = {
    "pid": "pid",
    "net": "network",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "user": "user_namespace",
    "time": "time",
}
# Without this layer another one cannot do its work.
_ALONG = {"user_namespace": ("capabilities",), "uts": ("host_name",)}
_SEEN = "link = os.readlink('/proc/self/ns/' + sys.argv[1])\nverdict(link in sys.argv[2:], link)"


def _namespaces(executor: ExecutorProcess, kind: str) -> set[str]:
    """Those of the executor, of the zygote and of every sandbox's first process's parent."""
    pids = {os.getpid(), executor.pid}
    for _ in range(2):
        pids |= {
            process.pid for process in machine.processes().values() if process.parent in pids - {os.getpid()}
        }
    pids -= {pid for pid, process in machine.processes().items() if process.uid == 0 and _is_init(pid)}
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def _is_init(pid: int) -> bool:
    """Whether it is the first process of a PID namespace below ours but one: a sandbox's."""
    try:
        with open(f"/proc/{pid}/status") as status:
            ids = next(line.split()[1:] for line in status if line.startswith("NSpid"))
    except OSError:
        return False
    return len(ids) > 2 and ids[-1] == "1"


@pytest.mark.parametrize("kind", [*KINDS, "mnt"])
def test_another_namespace_than_the_machines(executor: ExecutorProcess, kind: str) -> None:
    ours = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (os.getpid(), executor.pid)}
    assert attempt(executor, _SEEN, kind, *ours).startswith("CONTAINED")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_namespace_without_the_layer(executor: ExecutorProcess, kind: str) -> None:
    layer = KINDS[kind]
    with ExecutorProcess(without=[layer, *_ALONG.get(layer, ())], parked=1) as weakened:
        assert attempt(weakened, _SEEN, kind, *_namespaces(weakened, kind)).startswith("ESCAPED")


@contextlib.contextmanager
def _listeners() -> Iterator[tuple[str, str]]:
    """A TCP port on the machine's loopback and an abstract Unix socket, both with somebody listening."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        name = f"sandrun-test-{os.getpid()}"
        unix.bind("\0" + name)
        unix.listen()
        yield str(tcp.getsockname()[1]), name


_TCP = "verdict(works(socket.create_connection, ('127.0.0.1', int(sys.argv[1])), 5))"
_ABSTRACT = "verdict(works(socket.socket(socket.AF_UNIX).connect, '\\0' + sys.argv[2]))"
_INTERFACES = (
    "names = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]\n"
    "verdict(names != ['lo'], names)"
)
_OUTSIDE = (
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nverdict(works(s.connect, ('192.0.2.1', 53)))"
)
REACHING = {
    "tcp": (_TCP, ("network",)),
    "abstract socket": (_ABSTRACT, ("network", "landlock")),
    "interfaces": (_INTERFACES, ("network",)),
}


@pytest.mark.parametrize("name", REACHING)
def test_nothing_of_the_machines_network_is_reached(executor: ExecutorProcess, name: str) -> None:
    program, without = REACHING[name]
    with _listeners() as names:
        assert attempt(executor, program, *names).startswith("CONTAINED")
        with ExecutorProcess(without=without, parked=1) as weakened:
            escaped = attempt(weakened, program, *names).startswith("ESCAPED")
        assert escaped or (name == "interfaces" and len(socket.if_nameindex()) == 1)


def test_there_is_no_way_out(executor: ExecutorProcess) -> None:
    assert attempt(executor, _OUTSIDE).startswith("CONTAINED")


def test_the_host_name_is_its_own(executor: ExecutorProcess) -> None:
    program = "verdict(os.uname().nodename == sys.argv[1])"
    assert attempt(executor, program, os.uname().nodename).startswith("CONTAINED")
    with ExecutorProcess(without=["host_name"], parked=1) as weakened:
        assert attempt(weakened, program, os.uname().nodename).startswith("ESCAPED")


# Where a program looks for how long the machine runs; what tells it all the same is in docs/threat-model.md.
CLOCKS = {
    "boottime": "time.clock_gettime(time.CLOCK_BOOTTIME)",
    "monotonic": "time.clock_gettime(time.CLOCK_MONOTONIC)",
    "monotonic raw": "time.clock_gettime(time.CLOCK_MONOTONIC_RAW)",
    "monotonic coarse": "time.clock_gettime(6)",
    "uptime": "float(open('/proc/uptime').read().split()[0])",
    "sysinfo": "(libc.sysinfo(words), words[0])[1]",
    "start of a process": "int(open('/proc/self/stat').read().split()[21]) / os.sysconf('SC_CLK_TCK')",
}


@pytest.fixture(scope="module")
def on_the_machines_clock() -> Iterator[ExecutorProcess]:
    with ExecutorProcess(without=["time"], parked=1) as weakened:
        yield weakened


@pytest.mark.parametrize("clock", CLOCKS)
def test_no_clock_tells_when_the_machine_started(
    executor: ExecutorProcess, on_the_machines_clock: ExecutorProcess, clock: str
) -> None:
    program = (
        "words = (ctypes.c_long * 32)()\n"
        f"told = {CLOCKS[clock]}\nverdict(abs(told - float(sys.argv[1])) < 300 or told < 0, told)"
    )

    machines = {"monotonic": time.CLOCK_MONOTONIC, "monotonic coarse": time.CLOCK_MONOTONIC}
    machines["monotonic raw"] = time.CLOCK_MONOTONIC_RAW

    def now() -> str:
        return str(time.clock_gettime(machines.get(clock, time.CLOCK_BOOTTIME)))

    if float(now()) > 1200:  # else both clocks are near their start
        assert attempt(executor, program, now()).startswith("CONTAINED")
    assert attempt(on_the_machines_clock, program, now()).startswith("ESCAPED")


@contextlib.contextmanager
def _segment() -> Iterator[int]:
    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x5A5A0000 + os.getpid() % 0x10000
    number = libc.shmget(key, 4096, 0o1000 | 0o666)
    assert number >= 0
    try:
        yield key
    finally:
        libc.shmctl(number, 0, None)


def test_shared_memory_of_the_machine_is_out_of_reach(executor: ExecutorProcess) -> None:
    program = "verdict(libc.shmget(int(sys.argv[1]), 0, 0) >= 0)"
    with _segment() as key:
        assert attempt(executor, program, str(key)).startswith("CONTAINED")
        with ExecutorProcess(without=["ipc", "seccomp"], parked=1) as weakened:
            assert attempt(weakened, program, str(key)).startswith("ESCAPED")
