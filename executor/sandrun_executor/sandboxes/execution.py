"""One job in a sandbox: handed over, watched, ended, judged."""

import asyncio
import os
import signal
import time
from contextlib import ExitStack
from fcntl import F_ADD_SEALS, F_SEAL_SEAL, fcntl

from sandrun_executor.cgroups.probe import Cgroup, CgroupError
from sandrun_executor.receipts.measures import Collected
from sandrun_executor.receipts.record import FROZEN, NOT_COLLECTED, Record
from sandrun_executor.sandboxes.handover import NO_PACKAGES, Packages, Sink, held, job_message
from sandrun_executor.sandboxes.output import STDERR, STDOUT, LogPump
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_executor.sandboxes.timers import Timers
from sandrun_executor.sandboxes.verdicts import Exit, Stop, judge
from sandrun_shared import memfds
from sandrun_shared.jobs import LeftOut, Outcome
from sandrun_shared.languages import Language
from sandrun_shared.protocol import Execute, Output, Started, Usage

COLLECT_SECONDS = 8.0  # the collector's deadline, after which it leaves out the rest
COLLECT_END_SECONDS = 10.0  # the executor's deadline, after which it kills PID 1
USAGE_SECONDS = 1.0
CPU_LOOK_SECONDS = 0.05  # between two looks at a job near its CPU limit, which may sleep from there on
COLLECTOR_BYTES = 16 << 20  # memory for collecting, beyond the job's limit
_SEALS = FROZEN | F_SEAL_SEAL
_EMPTY = os.O_RDONLY | os.O_CLOEXEC


class Compilation:
    """Wall and CPU time of the compile step, which most jobs do not have."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup
        self._began_at = 0.0
        self._used_before = 0.0
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    def begin(self) -> None:
        """Start the clocks: the compiler is about to run. Raises CgroupError."""
        self._began_at = time.monotonic()
        self._used_before = self._cgroup.cpu_seconds()

    def end(self, now: float) -> None:
        """Stop the clocks; only the first call counts. Raises CgroupError."""
        if self._began_at:
            self.seconds = now - self._began_at
            self.cpu_seconds = self._cgroup.cpu_seconds() - self._used_before
            self._began_at = 0.0


class Execution:
    """One job in one sandbox, which the caller destroys; call `run`, because it closes the pump."""

    def __init__(
        self,
        sandbox: Sandbox,
        request: Execute,
        sink: Sink,
        record: Record,
        *,
        packages: Packages = NO_PACKAGES,
        grace_seconds: float = 0.0,
    ) -> None:
        """grace_seconds: from SIGTERM to SIGKILL when the wall time is over. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self._sandbox = sandbox
        self._cgroup = sandbox.slot.cgroup
        self._request = request
        self._limits = request.limits
        self._sink = sink
        self._record = record
        self._packages = packages
        self._grace_seconds = grace_seconds
        self._compilation = Compilation(self._cgroup)
        self._timers = Timers()
        self._stop: Stop | None = None
        self.pump = LogPump(
            request.limits.log_bytes, sandbox.slot.uid, self._deliver, sealer=record.log_sealer
        )

    def _deliver(self, output: Output) -> bool:
        self._record.observe_output(output)
        return self._sink.send(output)

    def stop(self, why: Stop) -> None:
        """End the job; the first reason counts. A later cancellation cuts grace and collecting short."""
        if self._stop is not None or self._sandbox.exited.done():
            if why is Stop.cancelled:
                self._sandbox.kill()  # no grace, since nobody wants its outputs
            return
        self._stop = why
        self._sandbox.end(self._grace_seconds if why is Stop.wall else 0.0)

    async def run(self, language: Language, fds: list[int], requested_at: float) -> None:
        """Run the job and send its events to the sink; Finished comes last.

        language: how its programs run.
        fds: order, upload, and stdin if the request has one; the caller closes them, and the record.
        """
        sandbox, limits, compilation, pump = self._sandbox, self._limits, self._compilation, self.pump

        def tell_started() -> None:
            compilation.end(sandbox.started_at)
            self._sink.send(Started(sandbox.started_at - requested_at - compilation.seconds))

        sandbox.on_compiling, sandbox.on_started = compilation.begin, tell_started
        with ExitStack() as undo:
            undo.callback(pump.close)
            undo.callback(self._timers.cancel)
            own = [held(undo, memfds.create(name)) for name in ("snapshot", "outputs", "names", "numbers")]
            stdin_fd = fds[2] if self._request.has_stdin else held(undo, os.open("/dev/null", _EMPTY))
            await self._hand_over(language, [stdin_fd, *pump.write_fds, *fds[:2], own[0]])
            pump.start()
            self._record.begin()
            self._watch()
            exited = await sandbox.exited
            ended_at = time.monotonic()
            self._loop.remove_reader(self._cgroup.oom_event_fd)
            memory_peak, oom_kills = self._cgroup.memory_peak_bytes(), self._cgroup.oom_kills()
            if self._stop is None and (exited is None or exited.status) and self._cgroup.was_refused_memory():
                self._stop = Stop.memory
            if self._stop is Stop.memory:
                memory_peak = min(memory_peak, limits.memory_bytes)  # only PID 1 was allowed more
            left_out = await self._collect(exited, memory_peak, [fds[0], *own])
            # Includes collecting, because the client chose what to collect.
            cpu_seconds = self._cgroup.cpu_seconds()
            if exited is None and (oom_kills or self._stop is Stop.memory):
                exited = Exit(signal.SIGKILL, disk_full=False)  # PID 1 with the job
            # Everything but PID 1 is reaped, and PID 1 never held the pipes, so they are at end of file.
            logs = pump.drain()
            code = exited.code if exited is not None else None
            compilation.end(ended_at)  # cut short, unless it has ended
            started_at = sandbox.started_at
            outcome = Outcome(
                verdict=judge(self._stop, exited, oom_kills, bool(started_at), sandbox.failure),
                exit_code=code if started_at else None,
                signal=exited.signal if exited is not None else None,
                detail="" if started_at else sandbox.failure,
                cpu_seconds=cpu_seconds,
                wall_seconds=ended_at - (started_at or ended_at),
                setup_seconds=(started_at or ended_at) - requested_at - compilation.seconds,
                compile_seconds=compilation.seconds,
                compile_cpu_seconds=compilation.cpu_seconds,
                setup_cpu_seconds=self._packages.cpu_seconds,
                memory_peak_bytes=memory_peak,
                stdout_bytes=pump.counts[STDOUT],
                stderr_bytes=pump.counts[STDERR],
                logs_truncated=pump.truncated,
                outputs_truncated=bool(left_out),
                outputs_left_out=left_out,
            )
            for fd in own[1:]:
                if NOT_COLLECTED in left_out:
                    os.ftruncate(fd, 0)  # PID 1 may have been killed halfway
                fcntl(fd, F_ADD_SEALS, _SEALS)
            self._sink.send(*await self._record.finished(outcome, logs, Collected(*own[1:])))

    async def _hand_over(self, language: Language, fds: list[int]) -> None:
        """Set the job's limits and send its process the order; kill the sandbox if that fails."""
        try:
            self._sandbox.limit(self._limits, self._limits.memory_bytes)
            self._loop.add_reader(self._cgroup.oom_event_fd, self._look_at_memory)
            await self._sandbox.configure(self._limits, self._packages)
            self._sandbox.hand_over(job_message(self._request, language, self._packages), fds)
        except (CgroupError, OSError) as error:
            self._sandbox.cannot_begin(error)

    def _watch(self) -> None:
        self._timers.after(self._limits.wall_seconds, lambda: self.stop(Stop.wall))
        if self._limits.cpu_seconds is not None:
            self._watch_cpu(self._limits.cpu_seconds)
        self._timers.after(USAGE_SECONDS, self._tell_usage)

    def _look_at_memory(self) -> None:
        """End the job if it has run out of memory."""
        if self._sandbox.exited.done() or not self._cgroup.out_of_memory():
            return
        try:
            # From outside, because PID 1 needs memory to end in order and may itself wait for some.
            self._cgroup.kill(spared=self._sandbox.pid)
            self._sandbox.limit(self._limits, self._limits.memory_bytes + COLLECTOR_BYTES)
        except (CgroupError, OSError):
            self._sandbox.kill()
        self.stop(Stop.memory)

    def _watch_cpu(self, limit: float) -> None:
        left = limit - self._cgroup.cpu_seconds()
        if left <= 0:
            self.stop(Stop.cpu)
        elif not self._sandbox.exited.done():
            pause = max(left / self._limits.cpu_cores, CPU_LOOK_SECONDS)
            self._timers.after(pause, lambda: self._watch_cpu(limit))

    def _tell_usage(self) -> None:
        if not self._sandbox.collected.done():
            self._look_at_memory()  # a system call that failed for want of memory makes no event
            used = self._packages.cpu_seconds + self._cgroup.cpu_seconds()
            self._sink.send(Usage(used, self._cgroup.memory_bytes()), ())
            self._timers.after(USAGE_SECONDS, self._tell_usage)

    async def _collect(self, exited: Exit | None, peak_bytes: int, fds: list[int]) -> tuple[LeftOut, ...]:
        """Have PID 1, now alone and soon unprivileged, collect the outputs; returns what was left out."""
        sandbox, limits = self._sandbox, self._limits
        if exited is None or self._stop is Stop.cancelled or not sandbox.started_at:
            sandbox.kill()  # PID 1 waits for Collect, but there is nothing to collect
            return (NOT_COLLECTED,) if exited is None and sandbox.started_at else ()
        try:
            if 2 * peak_bytes + COLLECTOR_BYTES > limits.memory_bytes:  # outputs are copied
                sandbox.limit(limits, limits.memory_bytes + limits.disk_bytes + COLLECTOR_BYTES)
            sandbox.collect(limits, COLLECT_SECONDS, fds)
        except (CgroupError, OSError):
            return (NOT_COLLECTED,)
        self._timers.after(COLLECT_END_SECONDS, sandbox.kill)
        return await sandbox.collected
