"""Starts the proxy of one installation and ends it."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from sandrun_executor.cgroups.probe import Cgroup
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.networks import Network
from sandrun_helpers.messages import Ready, Task
from sandrun_shared import framing
from sandrun_shared.credentials import locate
from sandrun_shared.settings import Executor as Settings
from sandrun_shared.settings import SettingsError, networks, words

PORT = 3128  # on the sandbox's own loopback
# Tests replace this with a program that lacks a layer.
PROGRAM: tuple[str, ...] = ("-I", "-m", "sandrun_helpers.package_proxy")
MEMORY_BYTES, PROCESSES = 256 << 20, 48  # per proxy; getaddrinfo needs threads
_START_SECONDS = 20.0
_END_SECONDS = 5.0
_log = logging.getLogger("sandrun.executor")


class ProxyError(Exception):
    """A proxy did not start, or its settings cannot be used; the text says why."""


def hosts_of(settings: Settings) -> tuple[str, ...]:
    """The names in `package_hosts`."""
    return words(settings.package_hosts)


def networks_of(settings: Settings) -> tuple[str, ...]:
    """The networks in `package_networks`. Raises ProxyError."""
    try:
        return tuple(map(str, networks(settings.package_networks, "[executor] package_networks")))
    except SettingsError as error:
        raise ProxyError(str(error)) from None


def credential_of(settings: Settings) -> str:
    """The credential that a service manager hands to the proxies it starts; "" if it hands over none."""
    return settings.package_netrc if settings.package_proxy and "/" not in settings.package_netrc else ""


@contextmanager
def files_of(settings: Settings) -> Iterator[tuple[int, ...]]:
    """Open the files that a proxy reads, because root reads no password. Raises ProxyError.

    These are certificates and `package_netrc`, unless the latter is a credential of the proxy's unit.
    """
    paths: list[tuple[str, Path]] = []
    if settings.package_netrc:
        paths.append(("package_ca", Path(settings.package_ca)))
    if settings.package_netrc and not credential_of(settings):
        try:
            paths.append(("package_netrc", locate(settings.package_netrc)))
        except SettingsError as error:
            raise ProxyError(f"package_netrc: {error}") from None
    fds: list[int] = []
    try:
        for setting, path in paths:
            try:
                fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise ProxyError(f"{setting}: {error.strerror}: {path}") from None
        yield tuple(fds)
    finally:
        framing.close_all(fds)


class Proxy:
    """One running proxy, with credentials for some hosts; a context manager that ends it."""

    def __init__(
        self, control: socket.socket, process: "subprocess.Popen[bytes] | None", credentials: frozenset[str]
    ) -> None:
        self.credentials = credentials
        self._control = control
        self._process = process

    @classmethod
    async def start(cls, task: Task, network: Network, cgroup: Cgroup, settings: Settings) -> "Proxy":
        """Start a proxy for a network, in a cgroup. Raises ProxyError, OSError.

        With `package_proxy`, the path of its socket, the service manager starts it instead."""
        with ExitStack() as undo:
            if settings.package_proxy:
                control, process = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), None
                undo.callback(control.close)
                control.connect(settings.package_proxy)
            else:
                control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(control.close)
                with far:
                    process = _spawn(far)
                undo.callback(_end, process)
                _enter(cgroup, process.pid)
            with network.listen(PORT) as listener, files_of(settings) as files:
                framing.send(control, task, (listener.fileno(), *files))
            control.setblocking(False)
            ready = await _answer(control)
            if ready.problem:
                raise ProxyError(ready.problem)
            undo.pop_all()
        return cls(control, process, frozenset(ready.hosts) & frozenset(task.hosts))

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        if self._process is not None:
            _end(self._process)


async def _answer(control: socket.socket) -> Ready:
    """Receive a proxy's report of its start. Raises ProxyError."""
    try:
        async with asyncio.timeout(_START_SECONDS):
            data = await asyncio.get_running_loop().sock_recv(control, framing.MAX_FRAME)
        return msgspec.msgpack.decode(data, type=Ready)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise ProxyError("the package proxy did not start; see its output above") from None


def _spawn(control: socket.socket) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, *PROGRAM],
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        _log.error("package proxy %d does not die: %s", process.pid, faults.state_of(process.pid))


def _enter(cgroup: Cgroup, pid: int) -> None:
    """Move a process into a cgroup of either version."""
    if cgroup.into_fd is not None:
        fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup.into_fd)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
    for fd in cgroup.join_fds:
        os.write(fd, str(pid).encode())
