"""The life of one sandbox: prepared, handed a job, ended, proven empty."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from fcntl import F_ADD_SEALS, F_SEAL_SEAL, fcntl
from typing import TypeVar

from sandrun_executor.cgroups.driver import kill_once
from sandrun_executor.cgroups.probe import CgroupError
from sandrun_executor.receipts.measures import Collected
from sandrun_executor.receipts.record import FROZEN, NOT_COLLECTED, Record
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.channel import Heard, Link
from sandrun_executor.sandboxes.compilations import Compilation
from sandrun_executor.sandboxes.faults import Fault
from sandrun_executor.sandboxes.handover import (
    NO_PACKAGES,
    Packages,
    Sink,
    configuration,
    held,
    job_message,
    tmpfs_limits,
)
from sandrun_executor.sandboxes.output import STDERR, STDOUT, LogPump
from sandrun_executor.sandboxes.pidfds import is_pidfd, pid_of
from sandrun_executor.sandboxes.slots import Slot, SlotPool
from sandrun_executor.sandboxes.timers import Timers
from sandrun_executor.sandboxes.verdicts import Exit, Stop, judge, left_out_of
from sandrun_executor.sandboxes.zygote import Zygote
from sandrun_sandbox import messages
from sandrun_shared import memfds
from sandrun_shared.jobs import LeftOut, Limits, Outcome
from sandrun_shared.languages import Language
from sandrun_shared.protocol import Execute, Output, Started, Usage

PREPARE_SECONDS = 5.0
LEAVE_SECONDS = 0.5  # for what could not be prepared to go; then it ends behind its caller's back
ASK_SECONDS = 0.2  # from asking PID 1 to end the job to ending it ourselves
END_SECONDS = 2.0  # from asking PID 1 to ending PID 1, and with it the exit code and the outputs
COLLECT_SECONDS = 8.0  # what a collector takes: then it leaves out the rest
COLLECT_END_SECONDS = 10.0  # then PID 1 is ended
USAGE_SECONDS = 1.0
CPU_LOOK_SECONDS = 0.05  # between two looks at a job near its limit, which may sleep there until the end
EMPTY_SECONDS = 5.0
COLLECTOR_BYTES = 16 << 20  # what collecting needs besides the job's own limit
_SEALS = FROZEN | F_SEAL_SEAL
_EMPTY = os.O_RDONLY | os.O_CLOEXEC
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

    def __init__(self, zygote: Zygote, pool: SlotPool, slot: Slot, limits: Limits) -> None:
        self.on_released: Callable[[], None] = lambda: None  # everything in it is dead
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._slot = slot
        with ExitStack() as undo:
            self._init = Link()
            undo.callback(self._init.close)
            self._job = Link()
            undo.pop_all()
        self._pidfd = -1
        self._limits = limits
        self._folders = tmpfs_limits(limits)
        self._pump: LogPump | None = None
        self._on_started: Callable[[], None] = lambda: None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._configured: asyncio.Future[None] = self._loop.create_future()
        self._setup_cpu_seconds = 0.0
        self._exited: asyncio.Future[Exit | None] = self._loop.create_future()
        self._collected: asyncio.Future[tuple[LeftOut, ...]] = self._loop.create_future()
        self._dead: asyncio.Future[None] = self._loop.create_future()
        self._stop: Stop | None = None
        self._grace_seconds = 0.0
        self._failure = ""
        self._awaited = {"ready"}  # what may be reported now: nothing is that was not asked for
        self._started_at = 0.0
        self._compilation = Compilation(slot.cgroup)
        self._timers = Timers()
        self._zygote = zygote

    @classmethod
    async def prepare(
        cls,
        zygote: Zygote,
        pool: SlotPool,
        limits: Limits,
        gpu: int | None = None,
        *,
        started: str = "",
        installs: bool = False,
    ) -> "Sandbox":
        """Everything but the job, with the limits most jobs have.

        With a GPU if the job is to have one, and with an interpreter started for it.
        installs: what runs in it may write to the folder of packages, when one is mounted.

        Raises SandboxError, SlotsRetiredError, NoSlotError, CgroupError, OSError; the pool of slots ends what
        is left then.
        """
        slot = pool.acquire()
        try:
            sandbox = cls(zygote, pool, slot, limits)
        except BaseException:
            pool.release(slot)  # nothing is in it
            raise
        try:
            sandbox._limit(limits.memory_bytes)
            sandbox._init.listen(messages.FROM_INIT, sandbox._init_says)
            sandbox._job.listen(messages.FROM_JOB, sandbox._job_says)
            into_cgroup = slot.cgroup.into_fd is not None
            request = messages.Spawn(slot.uid, into_cgroup, sandbox._folders, gpu, started, installs)
            zygote.spawn(sandbox._init, sandbox._job, slot, request)
            async with asyncio.timeout(PREPARE_SECONDS):
                await sandbox._ready
        except TimeoutError:
            fault = sandbox._stuck()
            await pool.bury(sandbox.destroy(), LEAVE_SECONDS)
            raise SandboxError(fault, is_stuck=True) from None
        except BaseException:
            await pool.bury(sandbox.destroy(), LEAVE_SECONDS)
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
                self._compilation.begin()
            case messages.Started() if self._was_asked("started"):
                self._started_at = time.monotonic()
                self._compilation.end(self._started_at)
                self._on_started()
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

    def stop(self, why: Stop) -> None:
        """End the job; the first reason counts. PID 1 has END_SECONDS for it, after the grace of SIGTERM."""
        if self._exited.done():
            if why is Stop.cancelled:
                self.kill()  # nobody wants what is being collected
            return
        if self._stop is not None:
            if why is Stop.cancelled:
                self.kill()  # its grace is over: nobody wants what it would leave
            return
        self._stop = why
        grace = self._grace_seconds if why is Stop.wall else 0.0
        try:
            self._init.send(messages.Stop(grace), [])
        except OSError:
            self.kill()
        self._timers.after(grace + ASK_SECONDS, self._end_job)
        self._timers.after(grace + END_SECONDS, lambda: None if self._exited.done() else self.kill())

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

    async def execute(
        self,
        request: Execute,
        language: Language,
        fds: list[int],
        sink: Sink,
        requested_at: float,
        *,
        record: Record,
        packages: Packages = NO_PACKAGES,
        grace_seconds: float = 0.0,
    ) -> None:
        """Run one job and send its events to the sink; Finished comes last.

        language says how its programs run.
        fds: order, upload, and stdin if the request has one; they stay the caller's, as the record does.
        grace_seconds: from SIGTERM to SIGKILL when the wall time is over.
        """
        self._grace_seconds = grace_seconds
        limits, cgroup, compilation = request.limits, self._slot.cgroup, self._compilation
        self._limits = limits

        def deliver(output: Output) -> bool:
            record.saw(output)
            return sink.send(output)

        def tell_started() -> None:
            sink.send(Started(self._started_at - requested_at - compilation.seconds))

        self._on_started = tell_started
        with ExitStack() as undo:
            undo.callback(self._timers.cancel)
            pump = self._pump = LogPump(limits.log_bytes, self._slot.uid, deliver, sealer=record.log_sealer)
            undo.callback(pump.close)
            own = [held(undo, memfds.create(name)) for name in ("snapshot", "outputs", "names", "numbers")]
            stdin_fd = fds[2] if request.has_stdin else held(undo, os.open("/dev/null", _EMPTY))
            handed = [stdin_fd, *pump.write_fds, *fds[:2], own[0]]
            await self._hand_over(request, language, handed, packages)
            pump.start()
            record.begin()
            self._watch(limits, sink)
            exited = await self._exited
            ended_at = time.monotonic()
            self._loop.remove_reader(cgroup.oom_event_fd)
            memory_peak, oom_kills = cgroup.memory_peak_bytes(), cgroup.oom_kills()
            if self._stop is None and (exited is None or exited.status) and cgroup.was_refused_memory():
                self._stop = Stop.memory
            if self._stop is Stop.memory:
                memory_peak = min(memory_peak, limits.memory_bytes)  # above it PID 1 was let end the job
            left_out = await self._collect(limits, exited, memory_peak, [fds[0], *own])
            cpu_seconds = cgroup.cpu_seconds()  # with what collecting took: the client chose what to collect
            if exited is None and (oom_kills or self._stop is Stop.memory):
                exited = Exit(signal.SIGKILL, disk_full=False)  # PID 1 with the job
            # Everything but PID 1 is reaped, and PID 1 never held the pipes: they are at their end.
            logs = pump.drain()
            code = exited.code if exited is not None else None
            compilation.end(ended_at)  # it was cut short, if it had not ended before
            outcome = Outcome(
                verdict=judge(self._stop, exited, oom_kills, bool(self._started_at), self._failure),
                exit_code=code if self._started_at else None,
                signal=exited.signal if exited is not None else None,
                detail="" if self._started_at else self._failure,
                cpu_seconds=cpu_seconds,
                wall_seconds=ended_at - (self._started_at or ended_at),
                setup_seconds=(self._started_at or ended_at) - requested_at - compilation.seconds,
                compile_seconds=compilation.seconds,
                compile_cpu_seconds=compilation.cpu_seconds,
                setup_cpu_seconds=packages.cpu_seconds,
                memory_peak_bytes=memory_peak,
                stdout_bytes=pump.counts[STDOUT],
                stderr_bytes=pump.counts[STDERR],
                logs_truncated=pump.truncated,
                outputs_truncated=bool(left_out),
                outputs_left_out=left_out,
            )
            for fd in own[1:]:
                if NOT_COLLECTED in left_out:
                    os.ftruncate(fd, 0)  # PID 1 may have been ended over it
                fcntl(fd, F_ADD_SEALS, _SEALS)
            sink.send(*await record.finished(outcome, logs, Collected(*own[1:])))

    def resume(self) -> None:
        """The sink has room again."""
        if self._pump is not None:
            self._pump.resume()

    def _limit(self, memory_bytes: int) -> None:
        self._slot.cgroup.limit(
            memory_bytes=memory_bytes,
            processes=self._limits.processes + 1,  # PID 1 is not the job's
            cpu_cores=self._limits.cpu_cores,
            watched=True,
        )

    async def _configure(self, limits: Limits, packages: Packages) -> None:
        """Have PID 1 resize folders and mount packages where that is needed. Raises TimeoutError, OSError."""
        order = configuration(self._folders, limits, packages)
        if order is None:
            return
        self._setup_cpu_seconds = packages.cpu_seconds
        self._awaited.add("configured")
        self._init.send(order, packages.mounts)
        async with asyncio.timeout(PREPARE_SECONDS):
            await self._configured

    async def _hand_over(
        self, request: Execute, language: Language, fds: list[int], packages: Packages
    ) -> None:
        """Set the job's limits and tell its process what to run; a sandbox in which that fails is ended."""
        try:
            self._limit(request.limits.memory_bytes)
            self._loop.add_reader(self._slot.cgroup.oom_event_fd, self._look_at_memory)
            await self._configure(request.limits, packages)
            self._awaited.add("started")
            self._job.send(job_message(request, language, packages), fds)
        except (CgroupError, OSError) as error:
            fault = self._stuck() if isinstance(error, TimeoutError) else faults.of_error(error)
            if not self._exited.done():
                _log.error("the limits of a job could not be set: %s", fault)
            self._fail(f"the limits could not be set: {fault.public}")
            self.kill()  # or dead already: the verdict will say of what

    def _watch(self, limits: Limits, sink: Sink) -> None:
        self._timers.after(limits.wall_seconds, lambda: self.stop(Stop.wall))
        if limits.cpu_seconds is not None:
            self._watch_cpu(limits.cpu_seconds, limits.cpu_cores)
        self._timers.after(USAGE_SECONDS, lambda: self._tell_usage(sink))

    def _look_at_memory(self) -> None:
        """End the job if it has run out of memory."""
        if self._exited.done() or not self._slot.cgroup.out_of_memory():
            return
        try:
            # Not by PID 1: it may itself be waiting for memory, of which it needs some to end in order.
            self._slot.cgroup.kill(spared=pid_of(self._pidfd))
            self._limit(self._limits.memory_bytes + COLLECTOR_BYTES)
        except (CgroupError, OSError):
            self.kill()
        self.stop(Stop.memory)

    def _watch_cpu(self, limit: float, cores: float) -> None:
        left = limit - self._slot.cgroup.cpu_seconds()
        if left <= 0:
            self.stop(Stop.cpu)
        elif not self._exited.done():
            self._timers.after(max(left / cores, CPU_LOOK_SECONDS), lambda: self._watch_cpu(limit, cores))

    def _tell_usage(self, sink: Sink) -> None:
        if not self._collected.done():
            cgroup = self._slot.cgroup
            self._look_at_memory()  # a system call that was refused memory made no event
            sink.send(Usage(self._setup_cpu_seconds + cgroup.cpu_seconds(), cgroup.memory_bytes()), ())
            self._timers.after(USAGE_SECONDS, lambda: self._tell_usage(sink))

    async def _collect(
        self, limits: Limits, exited: Exit | None, peak_bytes: int, fds: list[int]
    ) -> tuple[LeftOut, ...]:
        """Let PID 1, alone now and soon unprivileged, gather the outputs; what it has left out."""
        if exited is None or self._stop is Stop.cancelled or not self._started_at:
            self.kill()  # PID 1 waits for the word to collect, and there is nothing to collect
            return (NOT_COLLECTED,) if exited is None and self._started_at else ()
        try:
            if 2 * peak_bytes + COLLECTOR_BYTES > limits.memory_bytes:  # outputs are copied
                self._limit(limits.memory_bytes + limits.disk_bytes + COLLECTOR_BYTES)
            self._awaited.add("collected")
            self._init.send(messages.Collect(limits.output_files, limits.disk_bytes, COLLECT_SECONDS), fds)
        except (CgroupError, OSError):
            return (NOT_COLLECTED,)
        self._timers.after(COLLECT_END_SECONDS, self.kill)
        return await self._collected

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
                self._pool.retire(self._slot, self.on_released)
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
            while not self._pool.release(self._slot):
                with suppress(CgroupError):
                    self._slot.cgroup.kill()
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.1)


def _settle(future: asyncio.Future[T], result: T) -> None:
    """Give a result to those who wait, unless they have one."""
    if not future.done():
        future.set_result(result)
