"""Packages that jobs require: one installation for all jobs that require the same, then a cached layer."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sandrun_executor.environments.circuit import Failures, fault_of
from sandrun_executor.packages import installers
from sandrun_executor.packages.egress import ProxyError
from sandrun_executor.packages.installation import CANCELLED, Failure, Installation, InstallationRunner
from sandrun_executor.packages.layers import Layer, LayerMounts, Layers
from sandrun_executor.receipts.record import freeze
from sandrun_executor.sandboxes.handover import Packages
from sandrun_executor.sandboxes.slots import NoSlotError
from sandrun_shared.environments import DEFAULT
from sandrun_shared.jobs import Installer, Verdict
from sandrun_shared.protocol import Event, Usage
from sandrun_shared.settings import Executor as Settings

MAX_REQUIREMENTS_BYTES = 8 << 20
_log = logging.getLogger("sandrun.executor")


class Waiting(Protocol):
    """The connection of a job that waits for its packages."""

    gone: bool
    on_gone: Callable[[], None]

    def send(self, event: Event, fds: tuple[int, ...] = ()) -> bool: ...


@dataclass(frozen=True)
class LayerLease:
    """A job's lease of a layer, and the CPU time of its installation if this job began it."""

    layer: Layer
    cpu_seconds: float = 0.0


class _SharedInstallation:
    """An installation and the number of jobs that wait for it; at its end each holds one lease."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.done: asyncio.Future[LayerLease | Failure] = asyncio.get_running_loop().create_future()
        self.waiting = 0


class Dependencies:
    """Gives jobs the packages that they require."""

    def __init__(self, installations: InstallationRunner, mounts: LayerMounts, settings: Settings) -> None:
        self._installations = installations
        self._mounts = mounts
        self._layers = Layers(mounts, settings.dependency_layers_mb << 20)
        self._room = asyncio.Semaphore(settings.installs)
        self._seconds = settings.install_seconds
        self._running: dict[bytes, _SharedInstallation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def acquire(
        self, installer: Installer, build_name: str, fd: int, peer: Waiting
    ) -> LayerLease | Failure:
        """Lease the layer that has what the bundle behind fd requires, for one build.

        Raises RecordError when fd is no memfd that can be frozen.
        """
        freeze(fd)
        size = os.fstat(fd).st_size
        if size > MAX_REQUIREMENTS_BYTES:
            return Failure(Verdict.setup_error, "the requirements are too large")
        words = (build_name, installer.value, self._installations.version_for(installer))
        key = hashlib.sha256("\0".join(words).encode() + b"\0" + os.pread(fd, size, 0)).digest()
        layer = await self._layers.acquire(key)
        if layer is not None:
            return LayerLease(layer)
        if peer.gone or self._stopping:
            return CANCELLED
        shared = self._running.get(key)
        is_first = shared is None or shared.installation.stopped
        if shared is None or is_first:
            shared = self._begin(key, installer, os.dup(fd), peer)
        return await self._wait(shared, peer, is_first=is_first)

    def _begin(self, key: bytes, installer: Installer, fd: int, peer: Waiting) -> _SharedInstallation:
        def report(usage: Usage) -> None:
            peer.send(usage)

        shared = self._running[key] = _SharedInstallation(Installation(report))
        task = asyncio.get_running_loop().create_task(self._run(key, shared, installer, fd))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return shared

    async def _wait(
        self, shared: _SharedInstallation, peer: Waiting, *, is_first: bool
    ) -> LayerLease | Failure:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        peer.on_gone = lambda: None if gone.done() else gone.set_result(None)
        shared.waiting += 1
        both: set[asyncio.Future[Any]] = {shared.done, gone}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if shared.done.done():
            result = shared.done.result()
            return result if is_first else replace(result, cpu_seconds=0.0)
        shared.waiting -= 1
        if not shared.waiting:
            shared.installation.stop()
        return CANCELLED

    async def _run(self, key: bytes, shared: _SharedInstallation, installer: Installer, fd: int) -> None:
        result: LayerLease | Failure = Failure(
            Verdict.internal_error, "the installation failed inside Sandrun"
        )
        try:
            result = await self._install(key, shared.installation, installer, fd)
        except Exception:
            _log.exception("an installation ended by an internal error")
        finally:
            os.close(fd)
            if self._running.get(key) is shared:
                del self._running[key]
            if isinstance(result, LayerLease):
                result.layer.users += shared.waiting
                await self.release(result)  # the installation's lease
            shared.done.set_result(result)

    async def _install(
        self, key: bytes, installation: Installation, installer: Installer, fd: int
    ) -> LayerLease | Failure:
        try:
            async with asyncio.timeout(self._seconds):
                await self._room.acquire()
        except TimeoutError:
            return Failure(Verdict.setup_error, f"no installation could begin in {self._seconds:g} seconds")
        try:
            if installation.stopped:
                return CANCELLED
            made = await self._installations.run(installation, installer, fd)
        except NoSlotError:
            return Failure(Verdict.setup_error, "packages cannot be installed now: every slot is in use")
        except (*Failures, ProxyError) as error:
            _log.error("cannot install packages: %s", error)
            return Failure(Verdict.setup_error, f"packages cannot be installed now: {_public(error)}")
        finally:
            self._room.release()
        if isinstance(made, Failure):
            return made
        return LayerLease(await self._layers.add(key, made.number, made.size_bytes), made.cpu_seconds)

    async def packages(self, lease: LayerLease, installer: Installer, environment: str) -> Packages:
        """Describe a lease to the job's sandbox; the caller closes its descriptor. Raises OSError."""
        version = self._installations.version_for(installer)
        variables = installers.variables_to_run(installer, version, environment)
        mount = await self._mounts.share(lease.layer.number)
        # Modules that the zygote imported may be other versions than those required.
        warm = installer is not Installer.uv or environment == DEFAULT
        return Packages([mount], variables, cpu_seconds=lease.cpu_seconds, warm=warm)

    async def release(self, lease: LayerLease) -> None:
        """Release a lease."""
        await self._layers.release(lease.layer)

    def stop(self) -> None:
        """Cancel the installations, and with them the jobs that wait."""
        self._stopping = True
        for shared in self._running.values():
            shared.installation.stop()

    async def close(self) -> None:
        """Cancel all installations, wait for their end, and unmount every layer."""
        self.stop()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._mounts.close()


def _public(error: Exception) -> str:
    return str(error) if isinstance(error, ProxyError) else fault_of(error).public
