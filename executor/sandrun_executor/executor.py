"""The executor: environments, their parked sandboxes, and the jobs that run in them."""

import dataclasses
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sandrun_executor import helper_process, kernel
from sandrun_executor.cgroups.probe import Hierarchy
from sandrun_executor.environments.builds import BuildStore
from sandrun_executor.environments.circuit import Failures, Unavailable, fault_of
from sandrun_executor.environments.maker import SandboxMaker
from sandrun_executor.environments.warm import WarmEnvironment, WarmEnvironments
from sandrun_executor.gpu import devices
from sandrun_executor.packages.installation import Failure, InstallationRunner, outcome_of
from sandrun_executor.packages.layers import LayerMounts
from sandrun_executor.packages.provider import Dependencies
from sandrun_executor.receipts.record import Record, RecordError
from sandrun_executor.receipts.worker_key import WorkerKey
from sandrun_executor.sandboxes.execution import Execution
from sandrun_executor.sandboxes.handover import NO_PACKAGES, Packages
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_executor.sandboxes.slots import Slots
from sandrun_executor.sandboxes.verdicts import Stop
from sandrun_executor.seccomp.filter import compile_filter
from sandrun_executor.server import Peer, nothing
from sandrun_shared.environments import DefinitionError
from sandrun_shared.framing import close_all
from sandrun_shared.jobs import Installer
from sandrun_shared.languages import BY_NAME, Language
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
from sandrun_shared.settings import Settings, words

_log = logging.getLogger("sandrun.executor")


@dataclass(frozen=True)
class Call:
    """An admitted job: its request and descriptors, its peer, the time, its record, its GPU."""

    request: Execute
    fds: list[int]
    peer: Peer
    requested_at: float
    record: Record
    lease: devices.DeviceLease | None


class Executor:
    """Runs jobs."""

    def __init__(
        self,
        settings: Settings,
        hierarchy: Hierarchy,
        seccomp: bytes,
        *,
        installed: Mapping[str, Interpreter],
        worker_key: WorkerKey | None = None,
    ) -> None:
        self._settings = settings.executor
        self._worker_key = worker_key
        self._hierarchy = hierarchy
        # Doubled, because a job is answered before its sandbox is destroyed.
        count = 2 * self._settings.slots + self._settings.parked + self._settings.installs
        self._slots = Slots(hierarchy, self._settings.first_uid, count)
        self._interpreters = installed
        python = self._interpreters.get("python3")
        self._builds = BuildStore(
            self._settings.environments_dir,
            self._settings.environment_definitions,
            python.version if python is not None else "",
            import_ahead=self._settings.import_ahead,
        )
        self._maker = SandboxMaker(self._slots, seccomp, settings.limits.default())
        self._environments = WarmEnvironments(
            self._builds,
            self._maker,
            self._settings.parked,
            self._settings.warm_environments,
        )
        self._slots.on_freed = self._environments.slot_freed
        self._slots.on_reclaimed = self._environments.slot_reclaimed
        mounts = LayerMounts(kernel.noswap_option())
        versions = {name: found.version for name, found in self._interpreters.items()}
        self._installations = InstallationRunner(
            settings,
            hierarchy,
            compile_filter(resolver=True),
            mounts,
            versions=versions,
            prepare=self._environments.prepare_to_install,
            first_uid=self._settings.first_uid + count,
        )
        self._dependencies = Dependencies(self._installations, mounts, self._settings)
        self._running: set[Execution] = set()
        self._admitted = 0
        self._gpus = devices.DevicePool(devices.Found())
        self._stopping = False

    async def start(self) -> None:
        """Start the zygote and fill the park. Raises ZygoteError, SandboxError, CgroupError, OSError."""
        if self._settings.gpu:
            self._gpus = devices.DevicePool(await devices.find(*helper_process.ids_of(self._settings.user)))
            _log.info("%d GPUs for jobs", len(self._gpus.gpus))
            if self._gpus.found.problem:
                _log.warning("%s", self._gpus.found.problem)
        found = self._gpus.found
        self._maker.gpus = devices.for_image(found.devices, found.driver)
        await self._installations.start()
        # Readiness is reported only after one sandbox was prepared.
        await self._environments.start(list(words(self._settings.preload)))

    async def execute(self, request: Execute, fds: list[int], peer: Peer, requested_at: float) -> None:
        """Run one job and answer on its connection; every job that was not refused gets a Finished."""
        if request.gpu is None:
            await self._execute(request, fds, peer, requested_at)
        elif not self._gpus.knows(request.gpu):
            peer.send(Refused("unsupported", f"there is no GPU {request.gpu}"))
        elif (lease := self._gpus.acquire(request.gpu)) is None:
            peer.send(Refused("full", f"GPU {request.gpu} is in use"))
        else:
            with lease:
                await self._execute(request, fds, peer, requested_at, lease)

    async def _execute(
        self,
        request: Execute,
        fds: list[int],
        peer: Peer,
        requested_at: float,
        lease: devices.DeviceLease | None = None,
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
        call = Call(request, own_fds, peer, requested_at, record, lease)
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
        """Run a job with the packages that the bundle behind fd requires, or report why they are missing."""
        peer, dependencies = call.peer, self._dependencies
        if installer not in self._installations.installers:
            peer.send(Refused("unsupported", f"no packages can be installed with {installer.value} here"))
            return
        try:
            # Packages are installed for one build, so the job runs in that build, even if a newer one
            # appears.
            with self._environments.hold(call.request.environment) as environment:
                try:
                    layer = await dependencies.acquire(installer, environment.build_name, fd, peer)
                finally:
                    peer.on_gone = nothing
                if isinstance(layer, Failure):
                    outcome = outcome_of(layer, call.requested_at)
                    peer.send(*await call.record.finish_unstarted(outcome, layer.log))
                    return
                try:
                    if call.request.install_only:
                        took = time.monotonic() - call.requested_at
                        peer.send(Installed(took, layer.cpu_seconds))
                        return
                    packages = await dependencies.packages(layer, installer, call.request.environment)
                    try:
                        await self._run(call, packages, environment)
                    finally:
                        close_all(packages.mounts)
                finally:
                    await dependencies.release(layer)
        except RecordError as error:
            peer.send(Refused("invalid", str(error)))
        except DefinitionError as error:
            peer.send(Refused("unsupported", str(error)))

    async def _run(self, call: Call, packages: Packages, held: WarmEnvironment | None = None) -> None:
        request, peer = call.request, call.peer
        try:
            environment, sandbox = await self._environments.acquire(request.environment, request.gpu, held)
        except TimeoutError:
            peer.send(Refused("full", "no slot became free in time"))
            return
        except DefinitionError as error:
            peer.send(Refused("unsupported", str(error)))
            return
        except Failures as error:
            if not isinstance(error, Unavailable):  # which the log has already
                _log.error("cannot prepare a sandbox: %s", error)
            peer.send(Refused("unavailable", fault_of(error).for_clients))
            return
        try:
            language = BY_NAME[request.interpreter]
            if environment.build is not None:
                language = environment.build.runs(language)
            if call.lease is not None:
                sandbox.on_released = call.lease.defer_release()
                variables = {**language.env, **call.lease.variables}
                language = dataclasses.replace(language, env=variables)
            await self._run_in(sandbox, call, language, packages)
        finally:
            environment.release(sandbox)

    async def _run_in(self, sandbox: Sandbox, call: Call, language: Language, packages: Packages) -> None:
        peer, grace = call.peer, self._settings.grace_seconds
        execution = Execution(
            sandbox, call.request, peer, call.record, packages=packages, grace_seconds=grace
        )
        self._running.add(execution)
        peer.on_gone = lambda: execution.stop(Stop.cancelled)
        peer.on_room = execution.pump.resume
        if peer.gone or self._stopping:
            execution.stop(Stop.cancelled)
        try:
            await execution.run(language, call.fds, call.requested_at)
        finally:
            self._running.discard(execution)
            peer.on_gone = nothing

    def _refusal(self, request: Execute) -> Refused | None:
        if self._stopping:
            return Refused("stopping", "the executor is stopping")
        if request.version != VERSION:
            return Refused("invalid", f"protocol version {request.version}, this is {VERSION}")
        if request.interpreter not in self._interpreters:
            return Refused("unknown_interpreter", f"{request.interpreter} is not installed on this worker")
        missing = self._environments.refusal(request.environment)
        if missing:
            return Refused("unsupported", missing)
        if self._admitted >= self._settings.slots:
            return Refused("full", "every slot is in use")
        return None

    async def describe(self, request: Describe, peer: Peer) -> None:
        """Answer a Describe, which may take seconds if it asks to try making a sandbox."""
        problem = await self._environments.problem() if request.try_sandbox else ""
        peer.send(
            Description(
                slots=self._settings.slots,
                running=self._admitted,
                interpreters=tuple(self._interpreters.values()),
                environments=self._builds.described(self._interpreters, self._environments.warm_names()),
                worker_id=self._worker_key.worker_id if self._worker_key is not None else "",
                gpus=self._gpus.gpus,
                gpu_problem=self._gpus.found.problem,
                installers=self._installations.installers,
                problem=problem or self._environments.known_problem(),
                slots_retired=self._slots.retired,
                slots_reclaimed=self._slots.reclaimed,
                sandbox_failures=self._environments.failures,
            )
        )

    async def identify(self, request: Identify, peer: Peer) -> None:
        """Answer an Identify."""
        key = self._worker_key
        peer.send(Identified() if key is None else Identified(key.worker_id, key.sign_nonce(request.nonce)))

    def stop_jobs(self) -> None:
        """Refuse new jobs and cancel those that run; each still gets its Finished."""
        self._stopping = True
        for execution in self._running:
            execution.stop(Stop.cancelled)
        self._dependencies.stop()

    async def close(self) -> None:
        """Leave nothing: parked sandboxes, zygotes, cgroups."""
        self._stopping = True
        await self._dependencies.close()
        await self._environments.close()
        await self._slots.settled()
        self._slots.close()
        self._hierarchy.sweep()
