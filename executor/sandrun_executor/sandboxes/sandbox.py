"""The lifecycle of one sandbox: prepared, handed a job (execution.py), killed, proven empty."""

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
LEAVE_SECONDS = 0.5  # for a failed sandbox to end; then it ends in the background
ASK_SECONDS = 0.2  # from asking PID 1 to end the job to killing it ourselves
END_SECONDS = 2.0  # from asking PID 1 to killing it, which loses the exit code and the outputs
EMPTY_SECONDS = 5.0
_log = logging.getLogger("sandrun.executor")
T = TypeVar("T")


class SandboxError(Exception):
    """A sandbox could not be prepared; is_stuck: a step hangs, and will hang for other sandboxes too."""

    def __init__(self, fault: Fault, *, is_stuck: bool = False) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.is_stuck = is_stuck


class Sandbox:
    """One set of namespaces and processes, used for one job and then destroyed."""

    def __init__(self, zygote: Zygote, slots: Slots, slot: Slot, limits: Limits) -> None:
        self.on_compiling: Callable[[], None] = _nothing
        self.on_started: Callable[[], None] = _nothing
        self.on_released: Callable[[], None] = _nothing  # once every process in it is dead
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
        self._awaited = {"ready"}  # the reports that are expected now; any other ends the sandbox
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
        installs: bool = False,
    ) -> "Sandbox":
        """Prepare everything but the job, with the default limits.

        gpu: the job's, if it is to have one. installs: its job may write to the folder of packages, once that
        is mounted.

        Raises SandboxError, SlotsRetiredError, NoSlotError, CgroupError, OSError; `Slots` destroys the rest.
        """
        slot = slots.acquire()
        try:
            sandbox = cls(zygote, slots, slot, limits)
        except BaseException:
            slots.release(slot)  # no process is in it
            raise
        try:
            sandbox.limit(limits, limits.memory_bytes)
            sandbox._init.listen(messages.FROM_INIT, sandbox._init_says)
            sandbox._job.listen(messages.FROM_JOB, sandbox._job_says)
            into_cgroup = slot.cgroup.into_fd is not None
            request = messages.Spawn(slot.uid, into_cgroup, sandbox._folders, gpu, installs)
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
        """Find out why it is not ready, from the kernel, since no process in it answers."""
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
        """Its slot."""
        return self._slot

    @property
    def zygote(self) -> Zygote:
        """The zygote that forked it, with which it dies."""
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
        """How the job's process ended; None if that is unknown."""
        return self._exited

    @property
    def collected(self) -> "asyncio.Future[tuple[LeftOut, ...]]":
        """What the collector left out, once it has finished."""
        return self._collected

    @property
    def failure(self) -> str:
        """What failed in it, for clients; "" so far if nothing has."""
        return self._failure

    @property
    def usable(self) -> bool:
        """Whether a parked sandbox is still alive and waits for a job."""
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
                pass  # the job's execve or its end; PID 1 reports which
            case _:
                self._misheard()

    def _was_asked(self, what: str) -> bool:
        """Whether this report is expected; it is expected once."""
        if what not in self._awaited:
            return False
        self._awaited.remove(what)
        return True

    def _misheard(self) -> None:
        """Kill a sandbox that sends an impossible report, since none of its reports can be trusted."""
        self._fail("an unknown report")
        self.kill()

    def _step_failed(self, failed: messages.Failed) -> None:
        fault = faults.of_step(failed.step, failed.code)
        if self._started_at:  # log it: perhaps no sandbox can be made any more, and only this one shows why
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
        """End every wait for a report of it."""
        _settle(self._exited, None)
        _settle(self._collected, (NOT_COLLECTED,))
        _settle(self._configured, None)

    def end(self, grace_seconds: float) -> None:
        """Have PID 1 end the job within END_SECONDS, after SIGTERM and the grace if any."""
        try:
            self._init.send(messages.Stop(grace_seconds), [])
        except OSError:
            self.kill()
        self._timers.after(grace_seconds + ASK_SECONDS, self._end_job)
        seconds = grace_seconds + END_SECONDS
        self._timers.after(seconds, lambda: None if self._exited.done() else self.kill())

    def _end_job(self) -> None:
        """Kill the job from outside: among hundreds of forking processes, PID 1 is scheduled late."""
        if self._pidfd >= 0 and not self._exited.done():
            with suppress(CgroupError, OSError):  # then PID 1 does it, or dies and takes the job along
                kill_once(self._slot.cgroup.pids, pid_of(self._pidfd))
            self._timers.after(ASK_SECONDS, self._end_job)

    def kill(self) -> None:
        """Send SIGKILL to PID 1, which kills its whole namespace (pid_namespaces(7))."""
        if self._pidfd >= 0 and not self._dead.done():
            with suppress(ProcessLookupError):  # dead already, but not yet reported
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._timers.after(EMPTY_SECONDS, self._expect_nothing)  # a process in state D may outlast that

    def limit(self, limits: Limits, memory_bytes: int) -> None:
        """Set the limits of all its processes together. Raises CgroupError, OSError."""
        self._slot.cgroup.limit(
            memory_bytes=memory_bytes,
            processes=limits.processes + 1,  # PID 1 does not count as the job's
            cpu_cores=limits.cpu_cores,
            watched=True,
        )

    async def configure(self, limits: Limits, packages: Packages) -> None:
        """Resize its folders and mount packages, if the job needs that. Raises TimeoutError, OSError."""
        order = configuration(self._folders, limits, packages)
        if order is None:
            return
        self._awaited.add("configured")
        self._init.send(order, packages.mounts)
        async with asyncio.timeout(PREPARE_SECONDS):
            await self._configured

    def hand_over(self, job: messages.JobMessage, fds: list[int]) -> None:
        """Send the job's process its message. Raises OSError."""
        self._awaited.add("started")
        self._job.send(job, fds)

    def cannot_begin(self, error: CgroupError | OSError) -> None:
        """Kill it, because its job could not be handed over."""
        fault = self._stuck() if isinstance(error, TimeoutError) else faults.of_error(error)
        if not self._exited.done():
            _log.error("the limits of a job could not be set: %s", fault)
        self._fail(f"the limits could not be set: {fault.public}")
        self.kill()  # or it is dead already, and the verdict says why

    def collect(self, limits: Limits, seconds: float, fds: list[int]) -> None:
        """Have PID 1 collect the outputs; `collected` has the result. Raises OSError.

        fds: order, snapshot, and memfds for data, names and numbers.
        """
        self._awaited.add("collected")
        self._init.send(messages.Collect(limits.output_files, limits.disk_bytes, seconds), fds)

    async def destroy(self) -> None:
        """Kill what is left and release the slot; retire it if it does not become empty."""
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
        """Release the slot once it is empty. Raises TimeoutError if it does not become so."""
        async with asyncio.timeout(EMPTY_SECONDS):
            pause = 0.001
            while not self._slots.release(self._slot):
                with suppress(CgroupError):
                    self._slot.cgroup.kill()
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.1)


def _settle(future: asyncio.Future[T], result: T) -> None:
    """Set the result of a future that has none yet."""
    if not future.done():
        future.set_result(result)


def _nothing() -> None:
    return
