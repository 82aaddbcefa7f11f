"""The life of one sandbox: prepared, handed a job (execution.py), ended, proven empty."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TypeVar

from sandrun_executor.cgroups.driver import kill_once
from sandrun_executor.cgroups.probe import CgroupError
from sandrun_executor.receipts.record import NOT_COLLECTED
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.channel import Heard, Link
from sandrun_executor.sandboxes.faults import Fault
from sandrun_executor.sandboxes.handover import Packages, configuration, tmpfs_limits
from sandrun_executor.sandboxes.pidfds import is_pidfd, pid_of
from sandrun_executor.sandboxes.slots import Slot, Slots
from sandrun_executor.sandboxes.timers import Timers
from sandrun_executor.sandboxes.verdicts import Exit, left_out_of
from sandrun_executor.sandboxes.zygote import Zygote
from sandrun_sandbox import messages
from sandrun_shared.jobs import LeftOut, Limits

PREPARE_SECONDS = 5.0
LEAVE_SECONDS = 0.5  # for what could not be prepared to go; then it ends behind its caller's back
ASK_SECONDS = 0.2  # from asking PID 1 to end the job to ending it ourselves
END_SECONDS = 2.0  # from asking PID 1 to ending PID 1, and with it the exit code and the outputs
EMPTY_SECONDS = 5.0
_log = logging.getLogger("sandrun.executor")
T = TypeVar("T")


class SandboxError(Exception):
    """A sandbox could not be prepared; is_stuck when a step did not return, and will not for others."""

    def __init__(self, fault: Fault, *, is_stuck: bool = False) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.is_stuck = is_stuck


class Sandbox:
    """One set of namespaces and processes, used for one job and then destroyed."""

    def __init__(self, zygote: Zygote, slots: Slots, slot: Slot, limits: Limits) -> None:
        self.on_compiling: Callable[[], None] = _nothing
        self.on_started: Callable[[], None] = _nothing
        self.on_released: Callable[[], None] = _nothing  # everything in it is dead
        self._loop = asyncio.get_running_loop()
        self._slots = slots
        self._slot = slot
        with ExitStack() as undo:
            self._init = Link()
            undo.callback(self._init.close)
            self._job = Link()
            undo.pop_all()
        self._pidfd = -1
        self._folders = tmpfs_limits(limits)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._configured: asyncio.Future[None] = self._loop.create_future()
        self._exited: asyncio.Future[Exit | None] = self._loop.create_future()
        self._collected: asyncio.Future[tuple[LeftOut, ...]] = self._loop.create_future()
        self._dead: asyncio.Future[None] = self._loop.create_future()
        self._failure = ""
        self._awaited = {"ready"}  # what may be reported now: nothing is that was not asked for
        self._started_at = 0.0
        self._timers = Timers()
        self._zygote = zygote

    @classmethod
    async def prepare(
        cls,
        zygote: Zygote,
        slots: Slots,
        limits: Limits,
        gpu: int | None = None,
        *,
        started: str = "",
        installs: bool = False,
    ) -> "Sandbox":
        """Everything but the job, with the limits most jobs have.

        With a GPU if the job is to have one, and with an interpreter started for it.
        installs: what runs in it may write to the folder of packages, when one is mounted.

        Raises SandboxError, SlotsRetiredError, NoSlotError, CgroupError, OSError; `Slots` ends what
        is left then.
        """
        slot = slots.acquire()
        try:
            sandbox = cls(zygote, slots, slot, limits)
        except BaseException:
            slots.release(slot)  # nothing is in it
            raise
        try:
            sandbox.limit(limits, limits.memory_bytes)
            sandbox._init.listen(messages.FROM_INIT, sandbox._init_says)
            sandbox._job.listen(messages.FROM_JOB, sandbox._job_says)
            into_cgroup = slot.cgroup.into_fd is not None
            request = messages.Spawn(slot.uid, into_cgroup, sandbox._folders, gpu, started, installs)
            zygote.spawn(sandbox._init, sandbox._job, slot, request)
            async with asyncio.timeout(PREPARE_SECONDS):
                await sandbox._ready
        except TimeoutError:
            fault = sandbox._stuck()
            await slots.bury(sandbox.destroy(), LEAVE_SECONDS)
            raise SandboxError(fault, is_stuck=True) from None
        except BaseException:
            await slots.bury(sandbox.destroy(), LEAVE_SECONDS)
            raise
        return sandbox

    def _stuck(self) -> Fault:
        """Why it is not ready: it is asked of the kernel, as nobody in it answers."""
        if self._pidfd < 0:
            self._zygote.answers = False
            return faults.ZYGOTE_STUCK
        try:
            pids = self._slot.cgroup.pids()
        except CgroupError:
            pids = []
        return faults.of_stuck(dict.fromkeys([pid_of(self._pidfd), *pids]), PREPARE_SECONDS)

    @property
    def slot(self) -> Slot:
        """What it holds of the machine."""
        return self._slot

    @property
    def zygote(self) -> Zygote:
        """What it was forked from, and ends with."""
        return self._zygote

    @property
    def pid(self) -> int:
        """The id of its first process, which is PID 1 in it. Raises OSError."""
        return pid_of(self._pidfd)

    @property
    def started_at(self) -> float:
        """When its job's program began to run, by time.monotonic(); 0.0 until then."""
        return self._started_at

    @property
    def exited(self) -> "asyncio.Future[Exit | None]":
        """How the job's process ended, once it has; None if nobody can tell."""
        return self._exited

    @property
    def collected(self) -> "asyncio.Future[tuple[LeftOut, ...]]":
        """What the collector left out, once it is done."""
        return self._collected

    @property
    def failure(self) -> str:
        """What failed in it, in words for clients; "" while nothing has."""
        return self._failure

    @property
    def usable(self) -> bool:
        """Whether a parked sandbox still waits for its job."""
        return not self._failure and not self._exited.done() and not self._dead.done() and self._zygote.alive

    def _init_says(self, heard: Heard, fd: int | None) -> None:
        match heard:
            case messages.Forked() if fd is not None and self._pidfd < 0 and is_pidfd(fd):
                self._pidfd = fd
                self._loop.add_reader(fd, self._died)
                return
            case messages.Configured() if self._was_asked("configured"):
                _settle(self._configured, None)
            case messages.Exited():
                _settle(self._exited, Exit(heard.status, heard.disk_full))
            case messages.Collected() if self._was_asked("collected"):
                _settle(self._collected, left_out_of(heard.counts))
            case messages.Failed():
                self._step_failed(heard)
            case None:
                if self._pidfd < 0:
                    self._fail("the zygote is gone")
                    self._died()
            case _:
                self._misheard()
        if fd is not None:
            os.close(fd)

    def _job_says(self, heard: Heard, fd: int | None) -> None:
        if fd is not None:
            os.close(fd)
        match heard:
            case messages.Ready() if self._was_asked("ready"):
                _settle(self._ready, None)
            case messages.Compiling() if "started" in self._awaited:
                self.on_compiling()
            case messages.Started() if self._was_asked("started"):
                self._started_at = time.monotonic()
                self.on_started()
            case messages.Failed():
                self._step_failed(heard)
            case None:
                pass  # the job's exec, or its end: PID 1 tells which
            case _:
                self._misheard()

    def _was_asked(self, what: str) -> bool:
        """Whether this report is awaited; it is not a second time."""
        if what not in self._awaited:
            return False
        self._awaited.remove(what)
        return True

    def _misheard(self) -> None:
        """End a sandbox that reports what it cannot: what else it says is worth nothing."""
        self._fail("an unknown report")
        self.kill()

    def _step_failed(self, failed: messages.Failed) -> None:
        fault = faults.of_step(failed.step, failed.code)
        if self._started_at:  # no sandbox can be made any more, perhaps, and only this one tells
            _log.error("after a job: %s", fault)
        self._fail(fault.found, fault)

    def _fail(self, text: str, fault: Fault | None = None) -> None:
        self._failure = self._failure or text
        if not self._ready.done():
            self._ready.set_exception(SandboxError(fault or faults.unknown(text)))

    def _died(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
        _settle(self._dead, None)
        if not self._ready.done():
            self._fail(self._failure or "the sandbox ended while it was set up")
        self._expect_nothing()

    def _expect_nothing(self) -> None:
        """Let nobody wait for a word of it any more."""
        _settle(self._exited, None)
        _settle(self._collected, (NOT_COLLECTED,))
        _settle(self._configured, None)

    def end(self, grace_seconds: float) -> None:
        """Have PID 1 end the job, after the grace of SIGTERM if there is one; it has END_SECONDS for it."""
        try:
            self._init.send(messages.Stop(grace_seconds), [])
        except OSError:
            self.kill()
        self._timers.after(grace_seconds + ASK_SECONDS, self._end_job)
        seconds = grace_seconds + END_SECONDS
        self._timers.after(seconds, lambda: None if self._exited.done() else self.kill())

    def _end_job(self) -> None:
        """End it from outside: among hundreds of processes that fork for ever, PID 1's turn comes late."""
        if self._pidfd >= 0 and not self._exited.done():
            with suppress(CgroupError, OSError):  # then PID 1 does, or the end of PID 1
                kill_once(self._slot.cgroup.pids, pid_of(self._pidfd))
            self._timers.after(ASK_SECONDS, self._end_job)

    def kill(self) -> None:
        """SIGKILL to PID 1, and with it to its whole namespace (pid_namespaces(7))."""
        if self._pidfd >= 0 and not self._dead.done():
            with suppress(ProcessLookupError):  # dead already, and we have not been told yet
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._timers.after(EMPTY_SECONDS, self._expect_nothing)  # state D has not ended by then

    def limit(self, limits: Limits, memory_bytes: int) -> None:
        """Set what the kernel gives all of its processes together. Raises CgroupError, OSError."""
        self._slot.cgroup.limit(
            memory_bytes=memory_bytes,
            processes=limits.processes + 1,  # PID 1 is not the job's
            cpu_cores=limits.cpu_cores,
            watched=True,
        )

    async def configure(self, limits: Limits, packages: Packages) -> None:
        """Give it folders of another size, and packages, if it needs them. Raises TimeoutError, OSError."""
        order = configuration(self._folders, limits, packages)
        if order is None:
            return
        self._awaited.add("configured")
        self._init.send(order, packages.mounts)
        async with asyncio.timeout(PREPARE_SECONDS):
            await self._configured

    def hand_over(self, job: messages.JobMessage, fds: list[int]) -> None:
        """Tell the job's process what to run. Raises OSError."""
        self._awaited.add("started")
        self._job.send(job, fds)

    def cannot_begin(self, error: CgroupError | OSError) -> None:
        """End it, as its job could not be handed over."""
        fault = self._stuck() if isinstance(error, TimeoutError) else faults.of_error(error)
        if not self._exited.done():
            _log.error("the limits of a job could not be set: %s", fault)
        self._fail(f"the limits could not be set: {fault.public}")
        self.kill()  # or dead already: the verdict will say of what

    def collect(self, limits: Limits, seconds: float, fds: list[int]) -> None:
        """Have PID 1 gather the outputs; `collected` tells the result. Raises OSError.

        fds: order, snapshot, and memfds for data, names and numbers.
        """
        self._awaited.add("collected")
        self._init.send(messages.Collect(limits.output_files, limits.disk_bytes, seconds), fds)

    async def destroy(self) -> None:
        """End whatever is left and give the slot back, or retire it when it does not become empty."""
        self.kill()
        if (event_fd := self._slot.cgroup.oom_event_fd) >= 0:
            self._loop.remove_reader(event_fd)
        released = False
        try:
            if self._pidfd >= 0:
                async with asyncio.timeout(EMPTY_SECONDS):
                    await asyncio.shield(self._dead)
            await self._release()
            released = True
            self.on_released()
        except TimeoutError:
            pass
        finally:
            if not released:
                self._slots.retire(self._slot, self.on_released)
            self._timers.cancel()
            self._init.close()
            self._job.close()
            if self._pidfd >= 0:
                self._loop.remove_reader(self._pidfd)
                os.close(self._pidfd)
                self._pidfd = -1

    async def _release(self) -> None:
        """Raises TimeoutError while something is left."""
        async with asyncio.timeout(EMPTY_SECONDS):
            pause = 0.001
            while not self._slots.release(self._slot):
                with suppress(CgroupError):
                    self._slot.cgroup.kill()
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.1)


def _settle(future: asyncio.Future[T], result: T) -> None:
    """Give a result to those who wait, unless they have one."""
    if not future.done():
        future.set_result(result)


def _nothing() -> None:
    return
