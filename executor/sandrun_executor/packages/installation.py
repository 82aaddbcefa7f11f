"""One installation of packages: a sandbox whose only way out is a proxy, and the layer that it fills."""

import dataclasses
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandrun_executor.cgroups.probe import Cgroup, Hierarchy
from sandrun_executor.packages import egress, installers
from sandrun_executor.packages.layers import LayerMounts
from sandrun_executor.receipts.record import Record
from sandrun_executor.sandboxes.execution import Execution
from sandrun_executor.sandboxes.handover import Packages, held
from sandrun_executor.sandboxes.networks import Network
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_executor.sandboxes.verdicts import Stop
from sandrun_helpers import messages
from sandrun_helpers.messages import Task
from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.layout import PYTHON
from sandrun_shared import memfds
from sandrun_shared.jobs import Installer, Limits, Outcome, Verdict
from sandrun_shared.languages import BY_NAME, ENTRYPOINT
from sandrun_shared.orders import Order, encode_bundle, encode_order
from sandrun_shared.protocol import Event, Execute, Finished, Output, Usage
from sandrun_shared.settings import Settings

LOG_BYTES = 48 << 10  # the end of an installer's output that is kept; it fits into one message
_DRIVER = "install.py"
_INODES = 20_000  # of the sandbox's tmpfs folders; the layer has more


@dataclass(frozen=True)
class Failure:
    """A failed installation: why, the end of the installer's output, and the CPU time it took."""

    verdict: Verdict
    detail: str
    log: bytes = b""
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class InstalledLayer:
    """A finished layer: its number in LayerMounts, its size, and the CPU time that it took."""

    number: int
    size_bytes: int
    cpu_seconds: float


CANCELLED = Failure(Verdict.cancelled, "cancelled while packages were installed")


class Prepare(Protocol):
    """Prepares a sandbox that installs packages."""

    def __call__(self, limits: Limits) -> Awaitable[Sandbox]: ...


class Installation:
    """A requested installation; `stop` ends it at any time."""

    def __init__(self, on_usage: Callable[[Usage], None]) -> None:
        self.stopped = False
        self.log = bytearray()
        self.outcome: Outcome | None = None
        self._on_usage = on_usage
        self._execution: Execution | None = None

    def runs_as(self, execution: Execution | None) -> None:
        """Set the execution that runs it now."""
        self._execution = execution
        if self.stopped:
            self.stop()

    def stop(self) -> None:
        """Cancel it."""
        self.stopped = True
        if self._execution is not None:
            self._execution.stop(Stop.cancelled)

    def send(self, event: Event, fds: tuple[int, ...] = ()) -> bool:
        """Receive an event of the sandbox: keep the end of the output, pass usage on."""
        match event:
            case Output(data=data):
                self._keep(data)
            case Usage():
                self._on_usage(event)
            case Finished(outcome=outcome, logs=logs):
                for output in logs:
                    self._keep(output.data)
                self.outcome = outcome
        return True

    def _keep(self, data: bytes) -> None:
        self.log += data
        del self.log[:-LOG_BYTES]


class InstallationRunner:
    """Runs installations; `installers` are those that jobs may name, none if no host is configured."""

    def __init__(
        self,
        settings: Settings,
        hierarchy: Hierarchy,
        seccomp: bytes,
        mounts: LayerMounts,
        *,
        versions: dict[str, str],
        prepare: Prepare,
        first_uid: int,
    ) -> None:
        """versions: of the interpreters, by name; proxies run as first_uid and the ids after it."""
        own = self._settings = settings.executor
        self._hosts = egress.hosts_of(own)
        self.installers = installers.installed(frozenset(versions)) if self._hosts else ()
        self._versions = versions
        self._hierarchy = hierarchy
        self._seccomp = seccomp
        self._mounts = mounts
        self._prepare = prepare
        self._uids = list(range(first_uid, first_uid + own.installs))
        self._networks: tuple[str, ...] = ()
        self._cgroup: Cgroup | None = None
        disk = own.install_disk_mb << 20
        self._limits = Limits(
            wall_seconds=own.install_seconds,
            memory_bytes=(own.install_memory_mb << 20) + disk,
            disk_bytes=disk,
            inodes=_INODES,
            log_bytes=1 << 20,
            processes=settings.limits.processes,
            cpu_cores=settings.limits.cpu_cores,
            output_files=0,
        )

    async def start(self) -> None:
        """Check early that layers and proxies work. Raises OSError, CgroupError, ProxyError."""
        if not self._hosts:
            return
        self._networks = egress.networks_of(self._settings)
        count = self._settings.installs
        self._cgroup = self._hierarchy.create(f"proxies-{time.time_ns()}")
        self._cgroup.limit(
            memory_bytes=count * egress.MEMORY_BYTES, processes=count * egress.PROCESSES, cpu_cores=1.0
        )
        if self._settings.package_netrc and not self._settings.package_proxy:
            with (
                closing(Network()) as network,
                self._leased_uid() as uid,
                await self._start_proxy(network, uid),
            ):
                pass  # it has read its credentials
        number, fd = await self._mounts.create(1 << 20, 0)
        os.close(fd)
        await self._mounts.drop(number)

    def version_for(self, installer: Installer) -> str:
        """Return the version of the interpreter that an installer installs for."""
        return self._versions.get(installers.TABLE[installer].interpreter, "")

    async def run(
        self, installation: Installation, installer: Installer, fd: int
    ) -> InstalledLayer | Failure:
        """Install what the bundle behind fd requires.

        Raises SandboxError, ZygoteError, CgroupError, ProxyError, NoSlotError, SlotsRetiredError, OSError.
        """
        sandbox = await self._prepare(self._limits)
        number = 0
        made: InstalledLayer | Failure = CANCELLED
        try:
            try:
                with self._leased_uid() as uid, ExitStack() as undo:
                    number, layer_fd = await self._mounts.create(self._limits.disk_bytes, sandbox.slot.uid)
                    parts = (held(undo, layer_fd), fd, uid)
                    await self._execute(sandbox, installation, installer, parts, undo)
            finally:
                await sandbox.destroy()
            # Every process of the sandbox is dead, so no file of the layer is open any more.
            made = self._failure(installation) or InstalledLayer(
                number, await self._mounts.seal(number), _cpu(installation)
            )
            return made
        finally:
            if number and isinstance(made, Failure):
                await self._mounts.drop(number)

    @contextmanager
    def _leased_uid(self) -> Iterator[int]:
        uid = self._uids.pop()
        try:
            yield uid
        finally:
            self._uids.append(uid)

    async def _start_proxy(self, network: Network, uid: int) -> egress.Proxy:
        """Start the proxy of one installation. Raises ProxyError, OSError."""
        if self._cgroup is None:
            raise egress.ProxyError("no package host is configured")
        task = Task(
            self._hosts,
            2 * self._limits.disk_bytes,
            uid,
            self._seccomp,
            self._networks,
            egress.credential_of(self._settings),
        )
        return await egress.Proxy.start(task, network, self._cgroup, self._settings)

    async def _execute(
        self,
        sandbox: Sandbox,
        installation: Installation,
        installer: Installer,
        parts: tuple[int, int, int],
        undo: ExitStack,
    ) -> None:
        layer_fd, requirements_fd, uid = parts
        proxy = undo.enter_context(await self._start_proxy(sandbox.slot.network, uid))
        mounts = [layer_fd]
        tools = installers.tools(installer, self._settings)
        for _, path in tools:
            mounts.append(held(undo, linux.open_tree_clone(path)))
            linux.mount_read_only(mounts[-1])
        entry, version = installers.TABLE[installer], self.version_for(installer)
        order = Order(_DRIVER, (installer.value, entry.file, installers.short(version)))
        driver = Path(messages.__file__).with_name(_DRIVER).read_bytes()
        bundle = encode_bundle({_DRIVER: driver}) + _read(requirements_fd)
        fds = [_memfd(undo, encode_order(order)), _memfd(undo, bundle)]
        variables = installers.variables_to_install(installer, self._settings, proxy.credentials)
        packages = Packages(mounts, variables, tuple(name for name, _ in tools))
        asked = Execute("install", "python3", self._limits, warm=False)
        isolated = dataclasses.replace(BY_NAME["python3"], command=(PYTHON, "-I", ENTRYPOINT))
        record = Record(None, asked, fds)
        undo.callback(record.close)
        execution = Execution(sandbox, asked, installation, record, packages=packages)
        installation.runs_as(execution)
        try:
            await execution.run(isolated, fds, time.monotonic())
        finally:
            installation.runs_as(None)

    def _failure(self, installation: Installation) -> Failure | None:
        """Say how an installation failed, None if it succeeded."""
        outcome = installation.outcome
        if outcome is None or installation.stopped or outcome.verdict is Verdict.cancelled:
            return CANCELLED
        own = self._settings
        details = {
            Verdict.wall_time_limit: f"installing packages took more than {own.install_seconds:g} seconds",
            Verdict.memory_limit: f"installing packages took more than {own.install_memory_mb} MiB of memory",
            Verdict.disk_limit: f"the packages take more than {own.install_disk_mb} MiB",
            Verdict.nonzero_exit: _DETAILS.get(outcome.exit_code or 0, "the installer failed: see stderr"),
        }
        if outcome.verdict is Verdict.nonzero_exit and outcome.exit_code == messages.NO_SPACE:
            detail = details[Verdict.disk_limit]
        else:
            detail = details.get(outcome.verdict, outcome.detail or "the installer ended before its time")
        if outcome.verdict is Verdict.ok:
            return None
        return Failure(Verdict.setup_error, detail, bytes(installation.log), outcome.cpu_seconds)


_DETAILS = {
    messages.REFUSED: "the installation asked for what this server does not let it reach: see stderr",
    messages.UNREACHABLE: "a host of packages could not be reached: see stderr",
}


def outcome_of(failure: Failure, requested_at: float) -> Outcome:
    """Build the outcome of a job that never ran because its packages are missing."""
    return Outcome(
        failure.verdict,
        detail=failure.detail,
        setup_seconds=time.monotonic() - requested_at,
        setup_cpu_seconds=failure.cpu_seconds,
        stderr_bytes=len(failure.log),
    )


def _cpu(installation: Installation) -> float:
    return installation.outcome.cpu_seconds if installation.outcome is not None else 0.0


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _memfd(undo: ExitStack, data: bytes) -> int:
    return held(undo, memfds.create("install", data))
