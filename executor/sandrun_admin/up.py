"""`sandrun up`: both services in the foreground, the executor as root and the api without privileges.

A small supervisor without threads: it sleeps in one selector that wakes for signals (a wakeup
descriptor), for the death of a child (its pidfd) and for the executor's READY=1 (sd_notify(3)).
"""

import contextlib
import fcntl
import http.client
import json
import os
import pwd
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from sandrun_shared import admin, kernel_log, settings, tls
from sandrun_shared.credentials import FOLDER as CREDENTIALS
from sandrun_shared.notify import is_service

START_SECONDS = 60.0
STOP_SECONDS = 15.0
KILL_SECONDS = 5.0  # from SIGKILL to the end of a process that can be killed
HEALTH_INTERVAL_SECONDS = 0.05
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0
RENEW_SECONDS = 5.0  # between two looks at the files of TLS
RUNTIME_FOLDER = "RUNTIME_DIRECTORY"  # where a service manager says that a service may make sockets
STEADY_SECONDS = 30.0  # having lived so long, a child that dies is started again at once


class StartError(Exception):
    """Sandrun cannot be started; the text says what to do."""


class NeedsRoot(StartError):
    """It must be root; the text says what for."""


class Stopping(Exception):
    """A signal asked for the end."""


def run(
    config: Path | None,
    overrides: Mapping[str, str],
    ready_fd: int | None = None,
    *,
    quotas: bool = False,
    as_json: bool = False,
) -> int:
    """Serve until SIGINT or SIGTERM; 0 then, 1 if a service could not be kept alive.

    overrides are keys of [api] and their values. Once it serves, the address goes to standard output, as
    JSON if asked for, and, with a line's end, to ready_fd, which is then closed. With quotas this machine's
    requests have some, too. Raises StartError, SettingsError.
    """
    environ = {**os.environ, **{f"SANDRUN_API__{key.upper()}": value for key, value in overrides.items()}}
    chosen = settings.load(config, environ)
    tls.check(chosen.api)
    tls.tls_context(chosen.api)
    _check_key(chosen.executor.worker_key, environ)
    if os.geteuid() != 0:
        raise NeedsRoot("the executor makes namespaces and cgroups")
    try:
        user = pwd.getpwnam(chosen.executor.user)
    except KeyError:
        raise StartError(f"there is no user {chosen.executor.user}: run deploy/setup.sh") from None
    _require_free_port(chosen.api.host, chosen.api.port)
    if others := kernel_log.others():
        _say(f"the kernel's log may get file names and code of jobs: {kernel_log.mend(others)}")
    with contextlib.ExitStack() as undo:
        folder = _runtime_folder(Path(chosen.executor.socket).parent, user.pw_gid, undo)
        own = _api_folder(folder / admin.FOLDER, user, undo)
        supervisor = Supervisor(
            chosen,
            user,
            folder,
            undo,
            config=config,
            environ={**child_environment(environ), RUNTIME_FOLDER: str(own)},
            exempt_loopback=not quotas and exempts_loopback(chosen, environ),
        )
        return supervisor.serve(ready_fd, as_json=as_json)


def exempts_loopback(chosen: settings.Settings, environ: Mapping[str, str]) -> bool:
    """Whether this machine's own requests have no quotas: where they are one person's, who set none."""
    return tls.is_personal(chosen.api) and chosen.quota == settings.Quota() and not is_service(environ)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the services see of the caller's environment: Sandrun's settings and nothing else."""
    kept = {key: value for key, value in environ.items() if key.startswith(settings.PREFIX) and "__" in key}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **kept}


def _check_key(name: str, environ: Mapping[str, str]) -> None:
    if name and not name.startswith("/") and ("/" in name or CREDENTIALS not in environ):
        raise StartError(
            f"[executor] worker_key = {name!r}: give the whole path of the file, from / on; "
            "a name without / is a credential, which only systemd hands over"
        )


def url(host: str, port: int, scheme: str = "http") -> str:
    """The address a client on this machine uses for a server listening on host."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def restart_delay(lived_seconds: float, previous_seconds: float) -> float:
    """Seconds to wait before the next start of a child that lived so long."""
    if lived_seconds >= STEADY_SECONDS:
        return FIRST_DELAY_SECONDS
    return min(max(2 * previous_seconds, FIRST_DELAY_SECONDS), LONGEST_DELAY_SECONDS)


class Child:
    """One service: its process, the pidfd that becomes readable when it ends, when it was started."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environ: dict[str, str],
        descriptors: Sequence[int] = (),
        end: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self._end = end
        self.started = time.monotonic()
        # In a new session: Ctrl-C reaches only `up`, which ends the services in their order.
        self.process = subprocess.Popen(
            command,
            env=environ,
            cwd="/",
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=descriptors,
        )
        self.pidfd = os.pidfd_open(self.process.pid)

    def stop(self) -> None:
        """The signal to end, then SIGKILL after STOP_SECONDS; reaps the process. Safe to call again."""
        if self.pidfd < 0:
            return
        if self.process.poll() is None:
            signal.pidfd_send_signal(self.pidfd, self._end)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                _say(f"the {self.name} does not end: killing it")
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
                try:
                    self.process.wait(KILL_SECONDS)
                except subprocess.TimeoutExpired:
                    _say(f"process {self.process.pid} of the {self.name} cannot be killed and stays")
        os.close(self.pidfd)
        self.pidfd = -1


class Supervisor:
    """Starts the services in order, keeps the executor alive, ends both in the reverse order."""

    def __init__(
        self,
        chosen: settings.Settings,
        user: pwd.struct_passwd,
        folder: Path,
        undo: contextlib.ExitStack,
        *,
        config: Path | None,
        environ: dict[str, str],
        exempt_loopback: bool,
    ) -> None:
        self._exempt_loopback = exempt_loopback
        self._settings = chosen
        self._arguments = [] if config is None else ["--config", str(config.absolute())]
        self._user = user
        self._environ = environ
        self._undo = undo
        self._selector = undo.enter_context(selectors.DefaultSelector())
        self._wakeup = self._watch_signals()
        self._notify_path = folder / "notify.sock"
        self._notify = self._bind_notify()
        self._is_ready = False
        self._tls: dict[str, int] = {}
        self._stamps: list[tuple[int, int, int]] | None = None
        self._executor: Child | None = None
        self._api: Child | None = None

    def serve(self, ready_fd: int | None, *, as_json: bool = False) -> int:
        """Start both, announce it, and wait for the end."""
        try:
            self._start_executor()
            self._start_api()
            if self._exempt_loopback:
                _say("requests of this machine are exempt from quotas (--quotas keeps them)")
            api = self._settings.api
            address = url(api.host, api.port, "https" if api.cert else "http")
            print(json.dumps({"url": address}) if as_json else f"Sandrun is ready on {address}", flush=True)
            if ready_fd is not None:
                with open(ready_fd, "w") as ready:
                    ready.write(f"{address}\n")
            self._keep_alive()
        except Stopping:
            return 0
        except StartError as error:
            _say(str(error))
            return 1
        finally:
            for child in (self._api, self._executor):
                if child is not None:
                    child.stop()

    def _keep_alive(self) -> NoReturn:
        """Start the executor again whenever it dies; StartError when the api does."""
        delay = 0.0
        while True:
            self._sleep(RENEW_SECONDS if self._tls else None)
            if self._ended(self._api):
                raise StartError("the api ended by itself")
            self._renew()
            executor = self._executor
            while executor is not None and self._ended(executor):
                delay = restart_delay(time.monotonic() - executor.started, delay)
                _say(f"the executor ended by itself: starting it again in {delay:.1f} s")
                self._forget(executor)
                self._pause(delay)
                try:
                    self._start_executor()
                except StartError as error:
                    _say(str(error))
                executor = self._executor

    def _start_executor(self) -> None:
        # SIGTERM when `up` is killed: the executor then removes its cgroups and mounts in order.
        command = ["setpriv", "--pdeathsig", "TERM", "--", *self._python("sandrun_executor")]
        environ = {**self._environ, "NOTIFY_SOCKET": str(self._notify_path)}
        if folder := os.environ.get(CREDENTIALS):  # when systemd started `up`
            environ[CREDENTIALS] = folder
        self._is_ready = False
        self._executor = self._watch(Child("executor", command, environ))
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready:
            if self._ended(self._executor):
                raise StartError("the executor could not start; `sandrun doctor` says what is missing")
            if time.monotonic() > deadline:
                self._forget(self._executor)
                raise StartError(f"the executor was not ready after {START_SECONDS:.0f} s")
            self._sleep(deadline - time.monotonic())

    def _start_api(self) -> None:
        identity = [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]
        nothing = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        command = ["setpriv", *identity, *nothing, "--pdeathsig", "KILL", "--", *self._python("sandrun_api")]
        if self._exempt_loopback:
            command.append("--exempt-loopback")
        # Only root may be able to read the files of TLS; the api gets copies that it can.
        self._stamps = tls.stamps(self._settings.api)
        self._tls = tls.hand_over(self._settings.api, self._undo)
        paths = {f"SANDRUN_API__{key.upper()}": f"/dev/fd/{number}" for key, number in self._tls.items()}
        environ = self._environ | paths
        # SIGTERM would wait for its jobs.
        self._api = self._watch(Child("api", command, environ, [*self._tls.values()], signal.SIGINT))
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self._settings.api):
            if self._ended(self._api) or self._ended(self._executor):
                raise StartError("the api could not start")
            if time.monotonic() > deadline:
                raise StartError(f"the api did not answer after {START_SECONDS:.0f} s")
            self._sleep(HEALTH_INTERVAL_SECONDS)

    def _renew(self) -> None:
        """Hand over the files of TLS again when they have changed."""
        api, stamps = self._settings.api, tls.stamps(self._settings.api)
        if self._api is None or not self._tls or stamps in (None, self._stamps):
            return
        self._stamps = stamps
        try:
            tls.tls_context(api)
            tls.copy(api, self._tls)
        except settings.SettingsError as error:
            _say(f"the old certificate stays: {error}")
            return
        signal.pidfd_send_signal(self._api.pidfd, signal.SIGHUP)

    def _python(self, module: str) -> list[str]:
        # -P: nothing is imported from the working directory.
        return [sys.executable, "-P", "-m", module, *self._arguments]

    def _sleep(self, seconds: float | None) -> None:
        """Until a signal (raises Stopping), a child's end, a notification, or `seconds` later."""
        for key, _ in self._selector.select(None if seconds is None else max(seconds, 0)):
            if key.fileobj is self._wakeup and self._wakeup.recv(4096):
                raise Stopping
            if key.fileobj is self._notify:
                self._is_ready = self._is_ready or b"READY=1" in self._notify.recv(4096).split(b"\n")

    def _pause(self, seconds: float) -> None:
        """The whole time, whatever else happens; only a signal ends it (raises Stopping)."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._ended(self._api):
                raise StartError("the api ended by itself")
            self._sleep(left)

    def _watch(self, child: Child) -> Child:
        self._selector.register(child.pidfd, selectors.EVENT_READ)
        return child

    def _forget(self, child: Child) -> None:
        if child.pidfd >= 0:
            self._selector.unregister(child.pidfd)
            child.stop()

    @staticmethod
    def _ended(child: Child | None) -> bool:
        return child is not None and child.process.poll() is not None

    def _bind_notify(self) -> socket.socket:
        notify = self._undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.setblocking(False)
        self._notify_path.unlink(missing_ok=True)
        mask = os.umask(0o177)  # only root may say that the executor is ready
        try:
            notify.bind(str(self._notify_path))
        finally:
            os.umask(mask)
        self._undo.callback(self._notify_path.unlink, missing_ok=True)
        self._selector.register(notify, selectors.EVENT_READ)
        return notify

    def _watch_signals(self) -> socket.socket:
        """Signals only write to a socket (signal.set_wakeup_fd); the loop reads it."""
        read_end, write_end = socket.socketpair()
        for end in (read_end, write_end):
            end.setblocking(False)
            self._undo.enter_context(end)
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write_end.fileno()))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Stays set until the process ends: a second Ctrl-C must not cut the orderly end short.
            signal.signal(number, lambda *_: None)
        self._selector.register(read_end, selectors.EVENT_READ)
        return read_end


def _runtime_folder(folder: Path, gid: int, undo: contextlib.ExitStack) -> Path:
    """Make the sockets' folder (0750 root:gid) and hold its lock; removed at the end if it is empty."""
    if not folder.exists():
        folder.mkdir(mode=0o700)
        os.chown(folder, 0, gid)
        folder.chmod(0o750)
    status = folder.lstat()
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise StartError(f"{folder} must belong to root and be writable by nobody else")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    undo.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartError(f"another `sandrun up` uses {folder}") from None
    undo.callback(_remove_if_empty, folder)
    return folder


def _api_folder(folder: Path, user: pwd.struct_passwd, undo: contextlib.ExitStack) -> Path:
    """The api's own folder in root's, for the operator's socket (0700); removed at the end."""
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, user.pw_uid, user.pw_gid, follow_symlinks=False)
    undo.callback(_remove_if_empty, folder)
    undo.callback((folder / admin.NAME).unlink, missing_ok=True)
    return folder


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _require_free_port(host: str, port: int) -> None:
    if port == 0:
        raise StartError("`up` needs a port: 0 would leave it unknown")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StartError(f"cannot listen on {host}, port {port}: {error.strerror}") from None


def _answers(api: settings.Api) -> bool:
    """Does the api say that it is healthy, which includes that it reached the executor?"""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.host, api.host)  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, api.port, timeout=2)
    if api.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # it is our own child, whatever name the certificate is for
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, api.port, timeout=2, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _say(text: str) -> None:
    print(f"sandrun: {text}", file=sys.stderr, flush=True)
