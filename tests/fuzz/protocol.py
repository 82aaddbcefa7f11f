"""Whatever arrives on the executor's channels, only the sandbox fails.

Orders come from the executor as marshal data, which is not safe for foreign bytes. Therefore only well-formed
orders with wrong values are tried, and only on the process that becomes the job.
"""

import array
import asyncio
import marshal
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import Any, cast

from hypothesis import strategies as st

from fuzz.target import Target
from sandrun_executor.cgroups.driver import CgroupError
from sandrun_executor.sandboxes.channel import Heard
from sandrun_executor.sandboxes.sandbox import Sandbox, SandboxError
from sandrun_executor.sandboxes.slots import Slot, Slots
from sandrun_executor.sandboxes.verdicts import judge
from sandrun_executor.sandboxes.zygote import Zygote
from sandrun_sandbox import job, messages
from sandrun_sandbox.channel import Channel
from sandrun_shared.jobs import Limits, Verdict

_SECONDS = 20
_WORDS = [
    "forked",
    "ready",
    "configured",
    "exited 0 0",
    "exited 0 1",
    "exited 9 0",
    "exited 127 0",
    "exited 1407 0",
]
_WORDS += [
    "exited 99999999999 0",
    "exited 0 2",
    "exited -1 0",
    "collected 0",
    "collected x",
    "failed unpack 1",
    "failed",
]
_WORDS += ["compiling", "started", "started now", "\0", "exited \u0663 0", "é"]
_reports = st.sampled_from(_WORDS).map(str.encode) | st.binary(max_size=300)
_descriptors = st.sampled_from(["", "", "", "null", "pipe", "process", "two"])


class _Cgroup:
    """A cgroup whose counters can be read or not."""

    oom_event_fd = None

    def __init__(self, *, readable: bool) -> None:
        self._readable = readable

    def cpu_seconds(self) -> float:
        if not self._readable:
            raise CgroupError("gone")
        return 1.0


class _Slot:
    def __init__(self, cgroup: _Cgroup) -> None:
        self.cgroup = cgroup


class _Zygote:
    alive = True


def _opened(kind: str) -> list[int]:
    if kind == "process":
        return [os.pidfd_open(os.getpid())]
    if kind == "pipe":
        return _one_end()
    return [os.open("/dev/null", os.O_RDONLY) for _ in range({"": 0, "null": 1, "two": 2}[kind])]


def _one_end() -> list[int]:
    near, far = os.pipe()
    os.close(far)
    return [near]


def _send(fd: int, data: bytes, fds: list[int]) -> None:
    sock = socket.socket(fileno=os.dup(fd))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    with sock:
        sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
    for one in fds:
        os.close(one)


async def _hears(said: list[tuple[bool, bytes, str]], readable: bool) -> None:
    loop = asyncio.get_running_loop()
    raised: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    killed: list[int] = []
    slot = cast(Slot, _Slot(_Cgroup(readable=readable)))
    sandbox = Sandbox(cast(Zygote, _Zygote()), cast(Slots, None), slot, Limits())
    sandbox.kill = lambda: killed.append(1)  # type: ignore[method-assign]  # a pidfd here is our own
    heard = asyncio.Event()

    def counted(says: Callable[[Heard, int | None], None]) -> Callable[[Heard, int | None], None]:
        def hear(message: Heard, fd: int | None) -> None:
            heard.set()
            says(message, fd)

        return hear

    sandbox._init.listen(messages.FROM_INIT, counted(sandbox._init_says))
    sandbox._job.listen(messages.FROM_JOB, counted(sandbox._job_says))
    for to_init, data, descriptors in said:
        link = sandbox._init if to_init else sandbox._job
        _send(link.far, data or b" ", _opened(descriptors))
        await heard.wait()
        heard.clear()
    try:
        assert not raised, raised
        assert not sandbox._started_at, "a job cannot start that was not handed over"
        assert not sandbox._configured.done() or sandbox._dead.done()
        assert not sandbox._collected.done() or sandbox._dead.done()
        exited = sandbox._exited.result() if sandbox._exited.done() else None
        assert judge(None, exited, 0, bool(sandbox._started_at), sandbox._failure) in (
            Verdict.setup_error,
            Verdict.disk_limit,
            Verdict.compile_error,
        )
        if sandbox._failure:
            assert not sandbox.usable
        if sandbox._failure == "an unknown report":
            assert killed
        if sandbox._ready.done() and (error := sandbox._ready.exception()):
            assert isinstance(error, SandboxError)
    finally:
        sandbox._init.close()
        sandbox._job.close()
        if sandbox._pidfd >= 0:
            loop.remove_reader(sandbox._pidfd)
            os.close(sandbox._pidfd)


def only_the_sandbox_fails(case: tuple[list[tuple[bool, bytes, str]], bool]) -> None:
    """Reports of a zygote, of PID 1 and of the job's process, in any order and with any descriptor."""
    before = sorted(os.listdir("/proc/self/fd"))
    asyncio.run(_hears(*case))
    assert sorted(os.listdir("/proc/self/fd")) == before, "a descriptor is left"


class _Open:
    """A process that is not confined."""

    def enter(self) -> None:
        return


_JOB = messages.JobMessage(("/bin/true",), (), {}, {}, "zip", False, None, 1, 1 << 20, 64, 8, 0)
_values = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.binary(max_size=3)
_some = _values | st.lists(_values, max_size=2).map(tuple) | st.dictionaries(_values, _values, max_size=2)
_requests = st.builds(
    lambda name, values, changes: (name, *[changes.get(index, value) for index, value in enumerate(values)]),
    st.sampled_from(["job", "job", "stop", ""]),
    st.just(_JOB.values()) | st.lists(_some, max_size=13),
    st.dictionaries(st.integers(0, 11), _some, max_size=3),
)


def the_job_does_not_start(case: tuple[Any, int]) -> None:
    """Requests that say the wrong things, with descriptors that are too few or no order."""
    request, count = case
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _be_the_job(far)
    far.close()
    with near, open("/dev/null", "rb") as null:
        rights = array.array("i", [null.fileno()] * count)
        near.sendmsg(
            [marshal.dumps(request, 2)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if count else []
        )
        pidfd = os.pidfd_open(pid)
        ready, _, _ = select.select([pidfd], [], [], _SECONDS)
        os.close(pidfd)
        if not ready:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        reports = []
        while data := near.recv(300):
            reports.append(data)
    assert ready, "the process still waits"
    assert reports[0] == b"ready"
    refused = (b"failed take ", b"failed message_")
    assert len(reports) == 2, reports
    assert reports[1].startswith(refused), reports


def _be_the_job(far: socket.socket) -> None:
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        job.layout.WORK = "/nowhere"
        config = {"preloaded": None, "forks": False, "variables": {}, "spared": ()}
        job.main(config, cast(Any, _Open()), Channel(os.dup(far.fileno())))
    finally:
        os._exit(70)


TARGETS = [
    Target(
        "reports to the executor",
        only_the_sandbox_fails,
        st.tuples(st.lists(st.tuples(st.booleans(), _reports, _descriptors), max_size=6), st.booleans()),
        200,
    ),
    Target(
        "requests to the job's process",
        the_job_does_not_start,
        st.tuples(_requests | _some, st.integers(0, 8) | st.just(6)),
        40,
    ),
]
