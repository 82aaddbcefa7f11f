"""The executor as a process: one per socket, started, watched and stopped."""

import asyncio
import fcntl
import gc
import hashlib
import logging
import os
import signal
import subprocess
from pathlib import Path

from sandrun_executor import helper_process, trusted_paths
from sandrun_executor.access import Access, is_passed, listen
from sandrun_executor.cgroups import probe
from sandrun_executor.environments import interpreters
from sandrun_executor.executor import Executor
from sandrun_executor.receipts.worker_key import WorkerKey
from sandrun_executor.seccomp import filter as seccomp
from sandrun_executor.server import BACKLOG, Server
from sandrun_shared import descriptors
from sandrun_shared.keys import KeyFileError
from sandrun_shared.notify import notify, watchdog_seconds
from sandrun_shared.settings import Settings

_EXTRA_CONNECTIONS = 64
_WARNING_SECONDS = 10.0
_log = logging.getLogger("sandrun.executor")


class DaemonError(Exception):
    """The executor cannot start; the text says why."""


def instance_name(socket_path: Path) -> str:
    """The name of an executor's cgroups, the same for every start on one socket."""
    return hashlib.sha256(os.fsencode(socket_path.absolute())).hexdigest()[:12]


def lock(socket_path: Path) -> int:
    """Lock this socket's executor, so that no other one sweeps our groups away. Raises DaemonError."""
    socket_path.parent.mkdir(parents=True, exist_ok=True)
    path = lock_path(socket_path)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise DaemonError(f"another executor serves {socket_path}") from None
        # A predecessor removes the file while it holds the lock, so only a lock on the file at this path
        # counts.
        if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
            return fd
        os.close(fd)


def lock_path(socket_path: Path) -> Path:
    """Where the lock of this socket's executor is."""
    return socket_path.with_name(socket_path.name + ".lock")


def use_up_warnings() -> None:
    """Trigger the kernel's one warning about a program executed without arguments, which logs its path.

    Otherwise a job could make it log a client's path (pr_warn_once in do_execveat_common of fs/exec.c).
    """
    subprocess.run(
        [],
        executable="/usr/bin/true",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        timeout=_WARNING_SECONDS,
        check=False,
    )


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises DaemonError, OSError, CgroupError, ZygoteError, SandboxError."""
    # Installed first, because a signal during the start must not leave half of it behind.
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        worker_key = WorkerKey.load(settings.executor.worker_key)
    except KeyFileError as error:
        raise DaemonError(str(error)) from None
    try:
        trusted_paths.check(settings.executor.user)
    except trusted_paths.HelperError as error:
        raise DaemonError(str(error)) from None
    descriptors.allow_many()
    use_up_warnings()
    path = Path(settings.executor.socket)
    lock_fd = lock(path)
    try:
        hierarchy = probe.probe(instance_name(path))
        swept = hierarchy.sweep()
        if swept:
            _log.warning("swept %d cgroups that a predecessor left", swept)
        installed = await interpreters.installed(helper_process.ids_of(settings.executor.user))
        executor = Executor(
            settings, hierarchy, seccomp.compile_filter(), installed=installed, worker_key=worker_key
        )
        listener = listen(path, settings.executor.user, BACKLOG)
        server = Server(
            listener,
            Access.for_user(settings.executor.user),
            executor,
            settings.executor.slots + _EXTRA_CONNECTIONS,
        )
        try:
            await executor.start()
            gc.collect()
            gc.freeze()  # all of this lives on, so no collection needs to scan it again
            server.start()
            notify("READY=1")
            await _until(stopped)
            notify("STOPPING=1")
            executor.stop_jobs()
            await server.close()
        finally:
            await executor.close()
            if not is_passed():  # a socket that systemd passed outlives us
                path.unlink(missing_ok=True)  # noqa: ASYNC240 (the last act)
    finally:
        lock_path(path).unlink(missing_ok=True)
        os.close(lock_fd)


async def _until(stopped: asyncio.Event) -> None:
    """Wait for it, patting the watchdog if there is one."""
    interval = watchdog_seconds()
    while True:
        try:
            async with asyncio.timeout(interval):
                await stopped.wait()
                return
        except TimeoutError:
            notify("WATCHDOG=1")
