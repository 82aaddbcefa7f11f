"""Sandboxes in the executor, including those that cannot be killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from sandrun_executor.cgroups.probe import CgroupError
from sandrun_executor.receipts.record import NOT_COLLECTED
from sandrun_executor.sandboxes import sandbox as sandboxes
from sandrun_executor.sandboxes.sandbox import Sandbox, SandboxError
from sandrun_executor.sandboxes.slots import NoSlotError, Slot, Slots
from sandrun_executor.sandboxes.zygote import Zygote
from sandrun_sandbox import messages
from sandrun_shared.jobs import Limits

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FakeCgroup:
    """A group that is empty once `busy` is False."""

    oom_event_fd = -1
    join_fds = ()
    into_fd = None

    def __init__(self, *, busy: bool) -> None:
        self.busy = busy
        self.kills = 0

    def limit(self, **_: object) -> None: ...

    def pids(self) -> list[int]:
        return [os.getpid()]

    def kill(self) -> None:
        self.kills += 1
        self.busy = self.busy and self.kills < 3
        raise CgroupError("cannot write 1 to cgroup.kill")

    def remove(self) -> None:
        if self.busy:
            raise CgroupError("busy")


class FakeNetwork:
    fd = 0

    def is_as_new(self) -> bool:
        return False

    def close(self) -> None: ...


class FakeHierarchy:
    def __init__(self) -> None:
        self.made: list[FakeCgroup] = []
        self.busy = True

    def create(self, _name: str) -> FakeCgroup:
        self.made.append(FakeCgroup(busy=self.busy))
        return self.made[-1]


class FakeZygote:
    """Forks nothing: a sandbox's first process is one that the test gives, or missing."""

    alive = True
    answers = True

    def __init__(self, pid: int = 0) -> None:
        self._pid = pid
        self.sandbox: Sandbox | None = None

    def spawn(self, init: Any, _job: object, _slot: Slot, _request: messages.Spawn) -> None:
        if self._pid:
            init.hear(messages.Forked(), os.pidfd_open(self._pid))


class FakeSlot:
    cgroup = None


@pytest.fixture
def hierarchy() -> FakeHierarchy:
    return FakeHierarchy()


@pytest.fixture
async def slots(hierarchy: FakeHierarchy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slots]:
    """One slot, and short deadlines."""
    monkeypatch.setattr("sandrun_executor.sandboxes.networks.Network", FakeNetwork)
    monkeypatch.setattr(sandboxes.Link, "listen", lambda self, _kinds, hear: setattr(self, "hear", hear))
    for name in ("PREPARE_SECONDS", "EMPTY_SECONDS", "LEAVE_SECONDS", "END_SECONDS"):
        monkeypatch.setattr(sandboxes, name, 0.01)
    monkeypatch.setattr(sandboxes, "ASK_SECONDS", 3600.0)
    slots = Slots(cast(Any, hierarchy), 1000, 1)
    yield slots
    await slots.settled()
    slots.close()


def waiting() -> "subprocess.Popen[bytes]":
    """A process that waits until its input ends."""
    return subprocess.Popen([sys.executable, "-c", "import os; os.read(0, 1)"], stdin=subprocess.PIPE)


@pytest.fixture
def process() -> "AsyncIterator[subprocess.Popen[bytes]]":
    """A process that waits, and gets only the signals that the test passes on, as in state D."""
    with waiting() as started:
        yield started  # type: ignore[misc]
        started.kill()


@pytest.fixture
def _immortal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)


def sandbox(zygote: FakeZygote) -> Sandbox:
    return Sandbox(cast(Zygote, zygote), cast(Slots, None), cast(Slot, FakeSlot()), Limits())


async def prepare(zygote: FakeZygote, slots: Slots) -> SandboxError:
    async with asyncio.timeout(20):
        with pytest.raises(SandboxError) as caught:
            await Sandbox.prepare(cast(Zygote, zygote), slots, Limits())
    return caught.value


async def test_a_parked_sandbox_waits_until_something_in_it_ends() -> None:
    zygote = FakeZygote()
    waiting, without_job, dead = sandbox(zygote), sandbox(zygote), sandbox(zygote)
    without_job._init_says(messages.Exited(9, False), None)  # killed, for example
    dead._died()
    dead._ready.exception()  # nobody waits for it here
    babbles = sandbox(zygote)
    babbles._init_says(messages.Configured(), None)  # which nobody asked for
    babbles._ready.exception()
    assert [one.usable for one in (waiting, without_job, dead, babbles)] == [True, False, False, False]
    zygote.alive = False
    assert not waiting.usable
    for one in (waiting, without_job, dead, babbles):
        one._init.close()
        one._job.close()


async def test_a_zygote_that_does_not_answer_is_named_and_left(
    slots: Slots, hierarchy: FakeHierarchy
) -> None:
    hierarchy.busy = False
    zygote = FakeZygote()
    error = await prepare(zygote, slots)
    assert error.is_stuck
    assert "the process that forks sandboxes does not answer" in str(error)
    assert not zygote.answers
    await slots.settled()
    assert slots.retired == 0


@pytest.mark.usefixtures("_immortal")
async def test_what_does_not_die_costs_its_slot_and_nobody_waits_for_it(
    slots: Slots,
    hierarchy: FakeHierarchy,
    process: "subprocess.Popen[bytes]",
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = await prepare(FakeZygote(process.pid), slots)
    assert error.is_stuck
    assert f"process {process.pid}" in str(error)
    async with asyncio.timeout(20):
        await slots.settled()
    assert slots.retired == 1
    assert "slot 0 is retired" in caplog.text
    hierarchy.made[0].busy = False
    slots.acquire()
    assert (slots.retired, slots.reclaimed) == (0, 1)


async def test_what_cannot_be_killed_at_once_is_tried_again(
    slots: Slots,
    hierarchy: FakeHierarchy,
    process: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandboxes, "EMPTY_SECONDS", 20)
    await prepare(FakeZygote(process.pid), slots)  # its process dies, the group stays busy for a while
    async with asyncio.timeout(60):
        await slots.settled()
    assert (slots.retired, hierarchy.made[0].kills) == (0, 3)
    slots.acquire()


async def test_a_slot_comes_back_when_there_is_no_descriptor_for_a_sandbox(
    slots: Slots, hierarchy: FakeHierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(24, "Too many open files")

    hierarchy.busy = False
    monkeypatch.setattr(sandboxes, "Link", refuse)
    for _ in range(2):
        with pytest.raises(OSError, match="Too many open files"):
            await Sandbox.prepare(cast(Zygote, FakeZygote()), slots, Limits())


@pytest.mark.usefixtures("_immortal")
async def test_who_asked_for_it_does_not_wait_for_its_end(
    slots: Slots,
    hierarchy: FakeHierarchy,
    process: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandboxes, "EMPTY_SECONDS", 3600)
    hierarchy.busy = False
    await prepare(FakeZygote(process.pid), slots)
    with pytest.raises(NoSlotError):
        slots.acquire()
    process.kill()
    async with asyncio.timeout(20):
        await slots.settled()
    assert slots.retired == 0
    slots.acquire()


@pytest.mark.usefixtures("_immortal")
async def test_a_job_that_cannot_be_killed_ends_for_its_client(
    slots: Slots, process: "subprocess.Popen[bytes]"
) -> None:
    running = Sandbox(cast(Zygote, FakeZygote()), slots, slots.acquire(), Limits())
    running._init_says(messages.Forked(), os.pidfd_open(process.pid))
    running._job_says(messages.Ready(), None)
    running.end(0.0)
    async with asyncio.timeout(20):
        assert await running._exited is None
        assert await running._collected == (NOT_COLLECTED,)
    assert not running._dead.done()
    async with asyncio.timeout(20):
        await running.destroy()
    assert slots.retired == 1


@pytest.mark.parametrize(("code", "word"), [(524, "net.core.bpf_jit_limit"), (11, "kernel.pid_max")])
async def test_a_step_that_fails_is_told_with_its_remedy(code: int, word: str) -> None:
    one = sandbox(FakeZygote())
    one._job_says(messages.Failed("seccomp", code), None)
    with pytest.raises(SandboxError, match=f"step seccomp failed with errno {code}.*{word}"):
        await one._ready
    one._init.close()
    one._job.close()


async def test_a_job_that_its_first_process_does_not_end_is_ended_from_outside(
    slots: Slots,
    hierarchy: FakeHierarchy,
    process: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PID 1 goes on, because it reports the exit code and collects the outputs."""
    monkeypatch.setattr(sandboxes, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(sandboxes, "END_SECONDS", 3600.0)
    with waiting() as job:
        running = Sandbox(cast(Zygote, FakeZygote()), slots, slots.acquire(), Limits())
        group = hierarchy.made[0]
        monkeypatch.setattr(group, "pids", lambda: [process.pid, job.pid])
        running._init_says(messages.Forked(), os.pidfd_open(process.pid))
        running._job_says(messages.Ready(), None)
        running.end(0.0)
        assert await asyncio.to_thread(job.wait, 20) == -signal.SIGKILL
        assert process.poll() is None
        running._init_says(messages.Exited(9, False), None)
        running._timers.cancel()
    await running.destroy()
