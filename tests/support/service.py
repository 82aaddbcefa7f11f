"""`sandrun up` on a free port, a new socket and unused user ids, with its client."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from support import machine
from support.executor import ENDS_WITH_PARENT, PATIENCE, SOCKETS, next_uids, sweep

START_SECONDS = 60.0 * PATIENCE
USER = "sandrun"
COMMAND = [sys.executable, "-P", "-m", "sandrun_admin.cli", "up"]


def free_port() -> int:
    """Find an unused loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """Both daemons under their supervisor; a context manager that ends them."""

    def __init__(
        self, port: int | None = None, environment: Mapping[str, str] | None = None, **settings: object
    ) -> None:
        """settings: keys of [executor]; environment: variables for settings of any table."""
        # Short: a socket's path has room for 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.first_uid = next_uids()
        self.socket = self.folder / "run" / "executor.sock"
        self.port = port or free_port()
        self.log = self.folder / "log"
        self.command = COMMAND
        values = {"socket": self.socket, "first_uid": self.first_uid, "slots": 4, "parked": 1, **settings}
        self._environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SANDRUN_API__PORT": str(self.port),
            **{f"SANDRUN_QUOTA__{key}": "0" for key in ("CONCURRENT_JOBS", "QUEUED_JOBS", "JOBS_PER_HOUR")},
            "SANDRUN_QUOTA__CPU_SECONDS_PER_MINUTE": "0",
            **{f"SANDRUN_EXECUTOR__{key.upper()}": str(value) for key, value in values.items()},
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)

    def start(self, ready_word: str = "Sandrun is ready") -> "Service":
        """Start and wait until it serves. Raises AssertionError with its output otherwise."""
        SOCKETS.add(self.socket)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*ENDS_WITH_PARENT, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                cwd="/",
                start_new_session=True,  # a terminal's Ctrl-C reaches the whole group
            )
        self.said = ""
        while ready_word not in self.said:
            line = self._line()
            assert line, f"it did not start: {self.said}{self.log.read_text()}"
            self.said += line
        return self

    def _line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], START_SECONDS)[0]:
            self.process.kill()
        return os.read(self.process.stdout.fileno(), 65536).decode()

    @property
    def pid(self) -> int:
        """Pid of the command."""
        assert self.process is not None
        return self.process.pid

    def daemon(self, module: str) -> int:
        """Find the pid of `sandrun_executor` or `sandrun_api`. Raises AssertionError if it does not run."""
        for pid in machine.descendants(self.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if module.encode() in words and b"setpriv" not in words[0]:
                return pid
        raise AssertionError(f"{module} does not run")

    def submit(self, code: str, name: str = "main.py", **manifest: object) -> str:
        """Submit a Python program; returns the job's id. manifest: keys in addition to the entrypoint."""
        data = {"manifest": json.dumps({"entrypoint": name, **manifest})}
        answer = self.client.post("/submit", files={"files": (name, code.encode())}, data=data)
        assert answer.status_code == httpx.codes.OK, answer.text
        return str(answer.json()["job_id"])

    def status(self, job_id: str, wait: float = 0) -> dict[str, object]:
        """Return the job's status once it has changed, or after some seconds."""
        body: dict[str, object] = self.client.get(f"/status/{job_id}", params={"wait": wait}).json()
        return body

    def until(self, job_id: str, condition: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """Wait for a status of the job for which the condition holds. Raises AssertionError."""
        seen: list[dict[str, object]] = []

        def holds() -> bool:
            seen[:] = [self.status(job_id)]
            return condition(seen[0])

        assert machine.eventually(holds), seen
        return seen[0]

    def run(self, code: str, **more: object) -> dict[str, object]:
        """The answer of POST /run."""
        answer = self.client.post("/run", json={"code": code, "interpreter": "python3", **more})
        assert answer.status_code == httpx.codes.OK, answer.text
        body: dict[str, object] = answer.json()
        return body

    def interrupt(self) -> int:
        """Interrupt it as Ctrl-C does; returns the exit status."""
        os.killpg(self.pid, signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Wait for the exit status. Raises TimeoutExpired."""
        assert self.process is not None
        with self.process:  # closes the pipe
            return self.process.wait(START_SECONDS)

    def __enter__(self) -> "Service":
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it if it runs and remove its folder."""
        self.client.close()
        if self.process is not None:
            if self.process.poll() is None:
                self.interrupt()
            self.wait()
            left = sweep(self.socket)
            assert not left, f"{left} cgroups were left:\n{self.said}{self.log.read_text()}"
        shutil.rmtree(self.folder)
