"""Starts the proxy of one installation and ends it."""

import asyncio
import logging
import netrc
import os
import socket
import subprocess
import sys
from contextlib import ExitStack

from sandrun_executor.cgroups.probe import Cgroup
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.networks import Network
from sandrun_helpers.messages import Task
from sandrun_shared import framing
from sandrun_shared.credentials import locate
from sandrun_shared.settings import Executor as Settings
from sandrun_shared.settings import SettingsError, networks, words

PORT = 3128  # on the sandbox's own loopback
# Only in tests another program: one that does without a layer.
PROGRAM: tuple[str, ...] = ("-I", "-m", "sandrun_helpers.package_proxy")
MEMORY_BYTES, PROCESSES = 256 << 20, 48  # for each; a thread looks a name up
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


def credentials_of(settings: Settings) -> dict[str, tuple[str, str]]:
    """User and password of each host in `package_netrc`. Raises ProxyError."""
    if not settings.package_netrc:
        return {}
    try:
        path = locate(settings.package_netrc)
    except SettingsError as error:
        raise ProxyError(f"package_netrc: {error}") from None
    try:
        entries = netrc.netrc(str(path)).hosts
    except (OSError, netrc.NetrcParseError) as error:
        raise ProxyError(f"package_netrc: {type(error).__name__} in {path}") from None
    return {host: (login, password or "") for host, (login, _, password) in entries.items()}


class Proxy:
    """One running proxy; a context manager that ends it."""

    def __init__(self, control: socket.socket, process: "subprocess.Popen[bytes] | None") -> None:
        self._control = control
        self._process = process

    @classmethod
    async def start(cls, task: Task, network: Network, cgroup: Cgroup, service: str) -> "Proxy":
        """Start one that serves the given network, in the given cgroup, or let a service manager
        start it (`service` is the path of its socket). Raises ProxyError, OSError."""
        with ExitStack() as undo:
            if service:
                control, process = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), None
                undo.callback(control.close)
                control.connect(service)
            else:
                control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(control.close)
                with far:
                    process = _spawn(far)
                undo.callback(_end, process)
                _enter(cgroup, process.pid)
            with network.listen(PORT) as listener:
                framing.send(control, task, (listener.fileno(),))
            control.setblocking(False)
            try:
                async with asyncio.timeout(_START_SECONDS):
                    answer = await asyncio.get_running_loop().sock_recv(control, 16)
            except (OSError, TimeoutError):
                answer = b""
            if answer != b"ready":
                raise ProxyError("the package proxy did not start; its own words are above")
            undo.pop_all()
        return cls(control, process)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        if self._process is not None:
            _end(self._process)


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
    """Put a process into a cgroup, whatever the version."""
    if cgroup.into_fd is not None:
        fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup.into_fd)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
    for fd in cgroup.join_fds:
        os.write(fd, str(pid).encode())
