"""The life of one sandbox: prepared, handed a job, ended, proven empty."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import F_ADD_SEALS, F_SEAL_SEAL, fcntl

from sandrun_executor import faults
from sandrun_executor.cgroups import CgroupError
from sandrun_executor.compilations import Compilation
from sandrun_executor.faults import Fault
from sandrun_executor.folders import Folders
from sandrun_executor.handover import NO_PACKAGES, Packages, Program, Sink, orders_for
from sandrun_executor.links import Link, Words
from sandrun_executor.logs import STDERR, STDOUT, LogPump
from sandrun_executor.records import FROZEN, Record
from sandrun_executor.slots import Slot, SlotPool
from sandrun_executor.verdicts import Exit, Stop, judge
from sandrun_executor.zygotes import Zygote
from sandrun_shared.jobs import Limits, Outcome
from sandrun_shared.protocol import Execute, Output, Started, Usage

PREPARE_SECONDS = 5.0
LEAVE_SECONDS = (
    0.5  # a sandbox that could not be prepared and is not gone by then ends behind its caller's back
)
END_SECONDS = 1.0  # from asking PID 1 to end the job to ending PID 1
COLLECT_SECONDS = 10.0
USAGE_SECONDS = 1.0
EMPTY_SECONDS = 5.0
COLLECTOR_BYTES = 16 << 20  # what collecting needs besides the job's own limit
_SEALS = FROZEN | F_SEAL_SEAL
_log = logging.getLogger("sandrun.executor")


class SandboxError(Exception):
    """A sandbox could not be prepared; is_stuck when a step did not return, and will not for others."""

    def __init__(self, fault: Fault, *, is_stuck: bool = False) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.is_stuck = is_stuck


class Sandbox:
    """One set of namespaces and processes, used for one job and then destroyed."""

    def __init__(self, zygote: Zygote, pool: SlotPool, slot: Slot, limits: Limits) -> None:
        self.on_released = _nothing  # everything in it is dead
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._slot = slot
        self._init, self._job = Link(), Link()
        self._pidfd = -1
        self._folders = Folders.of(limits)
        self._pump: LogPump | None = None
        self._on_started: Callable[[], None] = _nothing
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._resized: asyncio.Future[None] = self._loop.create_future()
        self._mounted: asyncio.Future[None] = self._loop.create_future()
        self._setup_cpu_seconds = 0.0
        self._exited: asyncio.Future[Exit | None] = self._loop.create_future()
        self._collected: asyncio.Future[bool] = self._loop.create_future()
        self._dead: asyncio.Future[None] = self._loop.create_future()
        self._stop: Stop | None = None
        self._failure = ""
        self._started_at = 0.0
        self._compilation = Compilation(slot.cgroup)
        self._timers: list[asyncio.TimerHandle] = []
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
            sandbox._limit(limits, limits.memory_bytes)
            sandbox._init.listen(sandbox._init_says)
            sandbox._job.listen(sandbox._job_says)
            kind = {"gpu": gpu, "started": started, "installs": installs, **sandbox._folders.as_message()}
            zygote.spawn(sandbox._init, sandbox._job, sandbox._slot, kind)
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
        return faults.of_stuck(dict.fromkeys([faults.pid_of(self._pidfd), *pids]), PREPARE_SECONDS)

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
        return not self._exited.done() and not self._dead.done() and self._zygote.alive

    def _init_says(self, words: Words, fd: int | None) -> None:
        match words:
            case ["pid"] if fd is not None and self._pidfd < 0:
                self._pidfd = fd
                self._loop.add_reader(fd, self._died)
                return
            case ["resized" | "mounted" as what]:
                done = self._resized if what == "resized" else self._mounted
                if not done.done():
                    done.set_result(None)
            case ["exited", status, full] if status.isdigit() and full.isdigit():
                if not self._exited.done():
                    self._exited.set_result(Exit(int(status), full == "1"))
            case ["collected", truncated]:
                if not self._collected.done():
                    self._collected.set_result(truncated == "1")
            case ["failed", step, code]:
                self._step_failed(step, code)
            case []:
                if self._pidfd < 0:
                    self._fail("the zygote is gone")
                    self._died()
            case _:
                self._fail("an unknown report")
        if fd is not None:
            os.close(fd)

    def _job_says(self, words: Words, fd: int | None) -> None:
        if fd is not None:
            os.close(fd)
        match words:
            case ["ready"]:
                if not self._ready.done():
                    self._ready.set_result(None)
            case ["compiling"]:
                self._compilation.begin()
            case ["started"]:
                self._started_at = time.monotonic()
                self._compilation.end(self._started_at)
                self._on_started()
            case ["failed", step, code]:
                self._step_failed(step, code)
            case _:
                pass  # the end of file is the job's exec, or its end: PID 1 tells which

    def _step_failed(self, step: str, code: str) -> None:
        fault = faults.of_step(step, int(code) if code.isdigit() else 0)
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
        if not self._dead.done():
            self._dead.set_result(None)
        if not self._ready.done():
            self._fail(self._failure or "the sandbox ended while it was set up")
        self._expect_nothing()

    def _expect_nothing(self) -> None:
        """Let nobody wait for a word of it any more."""
        if not self._exited.done():
            self._exited.set_result(None)
        if not self._collected.done():
            self._collected.set_result(True)
        for waiting in (self._resized, self._mounted):
            if not waiting.done():
                waiting.set_result(None)

    def stop(self, why: Stop) -> None:
        """End the job; the first reason counts. PID 1 gets END_SECONDS to do it in order."""
        if self._stop is not None or self._exited.done():
            return
        self._stop = why
        try:
            self._init.send({"stop": True}, [])
        except OSError:
            self.kill()
        self._after(END_SECONDS, self._kill_unless_exited)

    def _kill_unless_exited(self) -> None:
        if not self._exited.done():
            self.kill()

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(seconds, action))

    def kill(self) -> None:
        """SIGKILL to PID 1, and with it to its whole namespace (pid_namespaces(7))."""
        if self._pidfd >= 0 and not self._dead.done():
            with suppress(ProcessLookupError):  # dead already, and we have not been told yet
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._after(EMPTY_SECONDS, self._expect_nothing)  # a process in state D has not died by then

    async def execute(
        self,
        request: Execute,
        program: Program,
        fds: list[int],
        sink: Sink,
        requested_at: float,
        *,
        record: Record,
        packages: Packages = NO_PACKAGES,
    ) -> None:
        """Run one job and send its events to the sink; Finished comes last.

        program says how entrypoints of its language run (`interpreters.program_of`).
        fds: order, upload, and stdin if the request has one; they stay the caller's, as the record does.
        """
        limits, cgroup, compilation = request.limits, self._slot.cgroup, self._compilation

        def deliver(output: Output) -> bool:
            record.saw(output)
            return sink.send(output)

        def tell_started() -> None:
            sink.send(Started(self._started_at - requested_at - compilation.seconds))

        self._on_started = tell_started
        pump = self._pump = LogPump(limits.log_bytes, self._slot.uid, deliver, sealer=record.log_sealer)
        own: list[int] = []
        stdin_fd = fds[2] if request.has_stdin else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for name in ("snapshot", "outputs", "index"):
                own.append(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            snapshot_fd, data_fd, index_fd = own
            try:
                self._limit(limits, limits.memory_bytes)
                await self._resize(Folders.of(limits))
                await self._mount(packages)
                handed = [stdin_fd, *pump.write_fds, *fds[:2], snapshot_fd]
                self._hand_over(request, program, handed, packages)
            except (CgroupError, OSError) as error:
                fault = self._stuck() if isinstance(error, TimeoutError) else faults.of_error(error)
                if not self._exited.done():
                    _log.error("the limits of a job could not be set: %s", fault)
                self._fail(f"the limits could not be set: {fault.public}")
                self.kill()  # or dead already: the verdict will say of what
            pump.start()
            record.begin()
            self._watch(limits, sink)
            exited = await self._exited
            ended_at = time.monotonic()
            memory_peak, oom_kills = cgroup.memory_peak_bytes(), cgroup.oom_kills()
            cpu_seconds = cgroup.cpu_seconds()
            truncated = await self._collect(limits, exited, memory_peak, [fds[0], *own])
            if exited is None and oom_kills:
                exited = Exit(signal.SIGKILL, disk_full=False)  # v2 ends the whole group, PID 1 with the job
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
                outputs_truncated=truncated,
            )
            for fd in (data_fd, index_fd):
                fcntl(fd, F_ADD_SEALS, _SEALS)
            sink.send(*await record.finished(outcome, logs, data_fd, index_fd))
        finally:
            for timer in self._timers:
                timer.cancel()
            pump.close()
            for fd in own:
                os.close(fd)
            if not request.has_stdin:
                os.close(stdin_fd)

    def resume(self) -> None:
        """The sink has room again."""
        if self._pump is not None:
            self._pump.resume()

    def _limit(self, limits: Limits, memory_bytes: int) -> None:
        self._slot.cgroup.limit(
            memory_bytes=memory_bytes,
            processes=limits.processes + 1,  # PID 1 is not the job's
            cpu_cores=limits.cpu_cores,
        )

    async def _resize(self, folders: Folders) -> None:
        """Give the job's folders another size than they were mounted with. Raises TimeoutError."""
        if folders == self._folders:
            return
        self._init.send({"resize": True, **folders.as_message()}, [])
        async with asyncio.timeout(PREPARE_SECONDS):
            await self._resized

    async def _mount(self, packages: Packages) -> None:
        """Mount packages. Raises TimeoutError, OSError."""
        if not packages.mounts:
            return
        self._setup_cpu_seconds = packages.cpu_seconds
        self._init.send({"packages": packages.tools}, packages.mounts)
        async with asyncio.timeout(PREPARE_SECONDS):
            await self._mounted

    def _hand_over(self, request: Execute, program: Program, fds: list[int], packages: Packages) -> None:
        self._job.send(orders_for(request, program, packages), fds)

    def _watch(self, limits: Limits, sink: Sink) -> None:
        self._after(limits.wall_seconds, lambda: self.stop(Stop.wall))
        if limits.cpu_seconds is not None:
            self._watch_cpu(limits.cpu_seconds, limits.cpu_cores)
        self._after(USAGE_SECONDS, lambda: self._tell_usage(sink))
        event_fd = self._slot.cgroup.oom_event_fd
        if event_fd is not None:
            self._loop.add_reader(event_fd, self._out_of_memory, event_fd)

    def _out_of_memory(self, event_fd: int) -> None:
        os.read(event_fd, 8)
        self._look_for_oom(50)

    def _look_for_oom(self, tries: int) -> None:
        # The event comes when memory is short; the counter moves a moment later, when a process was chosen.
        if self._exited.done():
            return
        if self._slot.cgroup.oom_kills() > 0:
            self.stop(Stop.memory)
        elif tries:
            self._after(0.01, lambda: self._look_for_oom(tries - 1))

    def _watch_cpu(self, limit: float, cores: float) -> None:
        left = limit - self._slot.cgroup.cpu_seconds()
        if left <= 0:
            self.stop(Stop.cpu)
        elif not self._exited.done():
            self._after(max(left / cores, 0.005), lambda: self._watch_cpu(limit, cores))

    def _tell_usage(self, sink: Sink) -> None:
        if not self._exited.done():
            cgroup = self._slot.cgroup
            sink.send(Usage(self._setup_cpu_seconds + cgroup.cpu_seconds(), cgroup.memory_bytes()), ())
            self._after(USAGE_SECONDS, lambda: self._tell_usage(sink))

    async def _collect(self, limits: Limits, exited: Exit | None, peak_bytes: int, fds: list[int]) -> bool:
        """Let PID 1, alone now and soon unprivileged, gather the outputs; True when some are missing."""
        if exited is None or self._stop is Stop.cancelled or not self._started_at:
            self.kill()  # PID 1 waits for the word to collect, and there is nothing to collect
            return exited is None
        try:
            if 2 * peak_bytes + COLLECTOR_BYTES > limits.memory_bytes:  # outputs are copied
                self._limit(limits, limits.memory_bytes + limits.disk_bytes + COLLECTOR_BYTES)
            self._init.send({"files": limits.output_files, "bytes": limits.disk_bytes}, fds)
        except (CgroupError, OSError):
            return True
        self._after(COLLECT_SECONDS, self.kill)
        truncated = await self._collected
        return truncated or bool(self._failure)

    async def destroy(self) -> None:
        """End whatever is left and give the slot back, or retire it when it does not become empty."""
        self.kill()
        event_fd = self._slot.cgroup.oom_event_fd
        if event_fd is not None:
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
            for timer in self._timers:
                timer.cancel()
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


def _nothing() -> None:
    return
