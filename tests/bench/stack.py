"""An executor and an api of the benchmark's own, started and ended as the project does it."""

import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 20.0
HEALTH_SECONDS = 0.01
USER = "sandrun"


class StackError(Exception):
    """A daemon did not start; the text ends with its output."""


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """Both daemons; a context manager that ends them and removes their folder."""

    def __init__(
        self,
        slots: int = 8,
        parked: int | None = None,
        environments: Path = Path("/nonexistent"),
    ) -> None:
        self.user = pwd.getpwnam(USER)
        # Short: a socket's path has room for 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="sr-bench-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.socket = str(self.folder / "executor.sock")
        self.port = free_port()
        self._log = self.folder / "log"
        self._environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SANDRUN_API__PORT": str(self.port),
            "SANDRUN_API__RETENTION_SECONDS": "5",
            "SANDRUN_QUOTA__CPU_SECONDS_PER_MINUTE": "0",
            "SANDRUN_QUOTA__CONCURRENT_JOBS": "0",
            "SANDRUN_QUOTA__JOBS_PER_HOUR": "0",
            "SANDRUN_QUOTA__QUEUED_JOBS": "0",
            "SANDRUN_EXECUTOR__SOCKET": self.socket,
            "SANDRUN_EXECUTOR__USER": USER,
            "SANDRUN_EXECUTOR__SLOTS": str(slots),
            "SANDRUN_EXECUTOR__ENVIRONMENTS_DIR": str(environments),
        }
        if parked is not None:
            self._environment["SANDRUN_EXECUTOR__PARKED"] = str(parked)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Stack":
        try:
            self._start_executor()
            self.start("api")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pid(self, name: str) -> int:
        """Of "executor" or "api"."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash would."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def start(self, name: str) -> None:
        """Start "executor" or "api" and wait until both together are healthy. Raises StackError."""
        if name == "executor":
            self._start_executor()
        else:
            self._start_api()
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            if self._processes[name].poll() is not None or time.monotonic() > deadline:
                raise StackError(f"the {name} did not start:\n" + self._log.read_text())
            threading.Event().wait(HEALTH_SECONDS)

    def _spawn(self, name: str, words: list[str], end: str, **more: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                # It ends with us, even when we are killed.
                ["setpriv", *words, "--pdeathsig", end, "--", sys.executable, "-P", "-m", f"sandrun_{name}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**self._environment, **more},
            )
        self._processes[name] = process
        return process

    def _start_executor(self) -> None:
        path = str(self.folder / "notify")
        Path(path).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(path)
            process = self._spawn("executor", [], "TERM", NOTIFY_SOCKET=path)
            pidfd = os.pidfd_open(process.pid)
            try:
                ready = select.select([told, pidfd], [], [], START_SECONDS)[0]
                if told not in ready or b"READY=1" not in told.recv(4096):
                    raise StackError("the executor did not start:\n" + self._log.read_text())
            finally:
                os.close(pidfd)

    def _start_api(self) -> None:
        uid, gid = self.user.pw_uid, self.user.pw_gid
        nothing = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        identity = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        self._spawn("api", [*identity, *nothing], "KILL")

    def _healthy(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def close(self) -> None:
        """End the api, then the executor, and remove the folder."""
        for name in ("api", "executor"):
            process = self._processes.pop(name, None)
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        said = self._log.read_text() if self._log.exists() else ""
        if said:
            print(said, file=sys.stderr, end="")
        shutil.rmtree(self.folder, ignore_errors=True)
