"""The executor: environments, their parked sandboxes, and the jobs that run in them."""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sandrun_executor import helper_process, kernel
from sandrun_executor.cgroups.probe import Cgroup, Hierarchy
from sandrun_executor.environments import interpreters
from sandrun_executor.environments.builds import Shelf
from sandrun_executor.environments.circuit import Failures, Unavailable, fault_of
from sandrun_executor.environments.pools import Pool, Pools
from sandrun_executor.environments.prestarted import usable
from sandrun_executor.gpu import devices
from sandrun_executor.gpu.types import for_image
from sandrun_executor.packages.installation import Failure, Installing, outcome_of
from sandrun_executor.packages.layers import Keeper
from sandrun_executor.packages.provider import Dependencies
from sandrun_executor.receipts.record import Record, RecordError
from sandrun_executor.receipts.worker_key import WorkerKey
from sandrun_executor.sandboxes.handover import NO_PACKAGES, Packages
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_executor.sandboxes.slots import SlotPool
from sandrun_executor.sandboxes.verdicts import Stop
from sandrun_executor.sandboxes.zygote import Image, Zygote
from sandrun_executor.seccomp.filter import compile_filter
from sandrun_executor.server import Peer, nothing
from sandrun_shared.environments import DefinitionError
from sandrun_shared.framing import close_all
from sandrun_shared.jobs import Installer, Limits
from sandrun_shared.protocol import (
    VERSION,
    Describe,
    Description,
    Execute,
    Identified,
    Identify,
    Installed,
    Interpreter,
    Refused,
)
from sandrun_shared.settings import Settings

_log = logging.getLogger("sandrun.executor")


def default_limits(settings: Settings) -> Limits:
    """The limits of a job that asks for nothing: parked sandboxes are made for these."""
    limits = settings.limits
    return Limits(
        memory_bytes=limits.memory_mb << 20,
        disk_bytes=limits.disk_mb << 20,
        inodes=limits.inodes,
        processes=limits.processes,
        cpu_cores=limits.cpu_cores,
    )


def core_bytes() -> int:
    """RLIMIT_CORE of jobs: a piped core_pattern ignores 0 but not 1 (core(5))."""
    return 1 if kernel.pipes_cores(kernel.CORE_PATTERN.read_text()) else 0


@dataclass(frozen=True)
class Call:
    """One job that was taken: what was asked with which descriptors, by whom, when; its record, its GPU."""

    request: Execute
    fds: list[int]
    peer: Peer
    requested_at: float
    record: Record
    loan: devices.Loan | None


class Executor:
    """Runs jobs; `without` switches layers off and exists for containment tests only."""

    def __init__(
        self,
        settings: Settings,
        hierarchy: Hierarchy,
        seccomp: bytes,
        *,
        installed: Mapping[str, Interpreter],
        without: Iterable[str] = (),
        worker_key: WorkerKey | None = None,
    ) -> None:
        self._settings = settings.executor
        self._worker_key = worker_key
        self._hierarchy = hierarchy
        self._seccomp = seccomp
        self._without = frozenset(without)
        self._limits = default_limits(settings)
        # Twice: a job's answer goes out before its sandbox is gone.
        slots = 2 * self._settings.slots + self._settings.parked + self._settings.installs
        slots += len(self._settings.started_interpreters)
        self._pool = SlotPool(hierarchy, self._settings.first_uid, slots)
        self._interpreters = installed
        self._zygote_cgroup: Cgroup | None = None
        python = self._interpreters.get("python3")
        self._shelf = Shelf(
            self._settings.environments_dir,
            self._settings.environment_definitions,
            python.version if python is not None else "",
            import_ahead=self._settings.import_ahead,
        )
        self._pools = Pools(
            self._shelf,
            self._settings.parked,
            self._settings.warm_environments,
            self._start_zygote,
            self._prepare,
            started=usable(self._settings.started_interpreters, self._interpreters),
        )
        self._pool.on_freed = self._pools.slot_freed
        self._pool.on_reclaimed = self._pools.slot_reclaimed
        keeper = Keeper(kernel.noswap_option())
        versions = {name: found.version for name, found in self._interpreters.items()}
        self._dependencies = Dependencies(
            Installing(
                settings,
                hierarchy,
                compile_filter(resolver=True),
                keeper,
                versions=versions,
                prepare=self._prepare_to_install,
                first_uid=self._settings.first_uid + slots,
            ),
            keeper,
            self._settings,
        )
        self._running: set[Sandbox] = set()
        self._admitted = 0
        self._lender = devices.Lender(devices.Found())
        self._stopping = False

    async def start(self) -> None:
        """Start the zygote and fill the park. Raises ZygoteError, SandboxError, CgroupError, OSError."""
        if self._settings.gpu:
            self._lender = devices.Lender(await devices.find(*helper_process.ids_of(self._settings.user)))
            _log.info("%d GPUs for jobs", len(self._lender.gpus))
            if self._lender.found.problem:
                _log.warning("%s", self._lender.found.problem)
        await self._dependencies.start()
        # One sandbox must work before anybody is told that we are ready.
        await self._pools.start([name.strip() for name in self._settings.preload.split(",") if name.strip()])

    async def _start_zygote(self, image: Image | None) -> Zygote:
        self._zygote_cgroup = self._zygote_cgroup or self._pool.create_cgroup("zygote")
        return await Zygote.start(
            self._zygote_cgroup,
            self._seccomp,
            core_bytes=core_bytes(),
            noswap=kernel.noswap_option(),
            without=self._without,
            image=image,
            gpus=for_image(self._lender.found.devices, self._lender.found.driver),
        )

    async def _prepare(self, zygote: Zygote, gpu: int | None, started: str) -> Sandbox:
        return await Sandbox.prepare(zygote, self._pool, self._limits, gpu, started=started)

    async def _prepare_to_install(self, limits: Limits) -> Sandbox:
        return await Sandbox.prepare(await self._pools.default_zygote(), self._pool, limits, installs=True)

    async def execute(self, request: Execute, fds: list[int], peer: Peer, requested_at: float) -> None:
        """Run one job and answer on its connection; every job that was not refused gets a Finished."""
        if request.gpu is None:
            await self._execute(request, fds, peer, requested_at)
        elif not self._lender.knows(request.gpu):
            peer.send(Refused("unsupported", f"there is no GPU {request.gpu}"))
        elif (loan := self._lender.borrow(request.gpu)) is None:
            peer.send(Refused("full", f"GPU {request.gpu} is in use"))
        else:
            with loan:
                await self._execute(request, fds, peer, requested_at, loan)

    async def _execute(
        self,
        request: Execute,
        fds: list[int],
        peer: Peer,
        requested_at: float,
        loan: devices.Loan | None = None,
    ) -> None:
        refusal = self._refusal(request)
        if refusal is not None:
            peer.send(refusal)
            return
        own_fds = fds if request.installer is None else fds[:-1]
        try:
            record = Record(self._worker_key, request, own_fds)
        except RecordError as error:
            peer.send(Refused("invalid", str(error)))
            return
        call = Call(request, own_fds, peer, requested_at, record, loan)
        self._admitted += 1
        try:
            if request.installer is None:
                await self._run(call, NO_PACKAGES)
            else:
                await self._install_and_run(call, request.installer, fds[-1])
        finally:
            record.close()
            self._admitted -= 1

    async def _install_and_run(self, call: Call, installer: Installer, fd: int) -> None:
        """Run a job with the packages that the bundle behind fd requires, or tell why they are not there."""
        peer, dependencies = call.peer, self._dependencies
        if installer not in dependencies.installers:
            peer.send(Refused("unsupported", f"no packages can be installed with {installer.value} here"))
            return
        try:
            # What is installed is for one build: the job gets that one, even if there is a newer one by then.
            with self._pools.hold(call.request.environment) as pool:
                try:
                    provided = await dependencies.provide(installer, pool.build_name, fd, peer)
                finally:
                    peer.on_gone = nothing
                if isinstance(provided, Failure):
                    await call.record.tell(peer, outcome_of(provided, call.requested_at), provided.log)
                    return
                try:
                    if call.request.install_only:
                        took = time.monotonic() - call.requested_at
                        peer.send(Installed(took, provided.cpu_seconds))
                        return
                    packages = await dependencies.packages(provided, installer, call.request.environment)
                    try:
                        await self._run(call, packages, pool)
                    finally:
                        close_all(packages.mounts)
                finally:
                    await dependencies.release(provided)
        except RecordError as error:
            peer.send(Refused("invalid", str(error)))
        except DefinitionError as error:
            peer.send(Refused("unsupported", str(error)))

    async def _run(self, call: Call, packages: Packages, held: Pool | None = None) -> None:
        request, peer = call.request, call.peer
        try:
            # One that has started does not look again for where packages are.
            taken = self._pools.take_started(request) if request.installer is None else None
            pool, sandbox = taken or await self._pools.take(request.environment, request.gpu, held)
        except TimeoutError:
            peer.send(Refused("full", "no slot became free in time"))
            return
        except DefinitionError as error:
            peer.send(Refused("unsupported", str(error)))
            return
        except Failures as error:
            if not isinstance(error, Unavailable):  # else it is in the log, once
                _log.error("cannot prepare a sandbox: %s", error)
            peer.send(Refused("unavailable", fault_of(error).told))
            return
        self._running.add(sandbox)
        peer.on_gone = lambda: sandbox.stop(Stop.cancelled)
        peer.on_room = sandbox.resume
        if peer.gone or self._stopping:
            sandbox.stop(Stop.cancelled)
        try:
            program = interpreters.program_of(request.interpreter)
            if pool.build is not None:
                program = pool.build.program(program)
            if call.loan is not None:
                sandbox.on_released = call.loan.until_then()
                program["env"] = {**program["env"], **call.loan.environment}
            await sandbox.execute(
                request,
                program,
                call.fds,
                peer,
                call.requested_at,
                record=call.record,
                packages=packages,
                grace_seconds=self._settings.grace_seconds,
            )
        finally:
            self._running.discard(sandbox)
            peer.on_gone = nothing
            pool.end(sandbox)

    def _refusal(self, request: Execute) -> Refused | None:
        if self._stopping:
            return Refused("stopping", "the executor is stopping")
        if request.version != VERSION:
            return Refused("invalid", f"protocol version {request.version}, this is {VERSION}")
        if request.interpreter not in self._interpreters:
            return Refused("unknown_interpreter", f"{request.interpreter} is not installed on this worker")
        missing = self._pools.refusal(request.environment)
        if missing:
            return Refused("unsupported", missing)
        if self._admitted >= self._settings.slots:
            return Refused("full", "every slot is in use")
        return None

    async def describe(self, request: Describe, peer: Peer) -> None:
        """Answer a Describe, which may take seconds when it is to try whether a sandbox can be made."""
        problem = await self._pools.problem() if request.try_sandbox else ""
        peer.send(
            Description(
                slots=self._settings.slots,
                running=self._admitted,
                interpreters=tuple(self._interpreters.values()),
                environments=self._shelf.described(self._interpreters, self._pools.warm_names()),
                worker_id=self._worker_key.worker_id if self._worker_key is not None else "",
                gpus=self._lender.gpus,
                gpu_problem=self._lender.found.problem,
                installers=self._dependencies.installers,
                problem=problem or self._pools.known_problem(),
                slots_retired=self._pool.retired,
                slots_reclaimed=self._pool.reclaimed,
                sandbox_failures=self._pools.failures,
            )
        )

    async def identify(self, request: Identify, peer: Peer) -> None:
        """Answer an Identify."""
        key = self._worker_key
        peer.send(Identified() if key is None else Identified(key.worker_id, key.sign_nonce(request.nonce)))

    def stop_jobs(self) -> None:
        """Take no more jobs and end those that run; each still gets its Finished."""
        self._stopping = True
        for sandbox in self._running:
            sandbox.stop(Stop.cancelled)
        self._dependencies.stop()

    async def close(self) -> None:
        """Leave nothing: parked sandboxes, zygotes, cgroups."""
        self._stopping = True
        await self._dependencies.close()
        await self._pools.close()
        await self._pool.settled()
        self._pool.close()
        self._hierarchy.sweep()
