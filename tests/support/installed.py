"""The services as systemd runs them: their units, sockets and traces."""

import json
import os
import socket
import subprocess
from pathlib import Path

import httpx

from support import machine
from support.executor import ExecutorProcess, Result

API, EXECUTOR, SOCKET = "sandrun-api.service", "sandrun-executor.service", "sandrun-executor.socket"
URL = "http://127.0.0.1:8443"
FIRST_UID = 2_000_000
BACK_SECONDS = 300.0  # an emulated machine is ten times slower than its host, more when that is busy


class Installed(ExecutorProcess):
    """A client for the executor that systemd runs."""

    def __init__(self) -> None:
        self.socket = Path("/run/sandrun/executor.sock")
        self.first_uid = FIRST_UID

    def connect(self) -> socket.socket:
        """Connect, with this machine's timeout."""
        sock = super().connect()
        sock.settimeout(BACK_SECONDS)
        return sock


def run(*command: str) -> str:
    """Run a command; returns its output. Raises CalledProcessError with its stderr."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def show(unit: str, name: str) -> str:
    """One property of a unit (systemctl(1))."""
    return run("systemctl", "show", "--property", name, "--value", unit).strip()


def main_pid(unit: str) -> int:
    """The pid of the unit's daemon; 0 while it does not run."""
    return int(show(unit, "MainPID"))


def cgroup(unit: str) -> Path:
    """Find the cgroup of the unit's processes."""
    return Path("/sys/fs/cgroup/system.slice") / unit


def job_processes() -> set[int]:
    """List the processes under the user id of any slot."""
    return machine.of_jobs(Installed())


def started_again(unit: str, before: int) -> bool:
    """Whether systemd runs a new daemon that has reported readiness."""
    return machine.eventually(
        lambda: main_pid(unit) not in {0, before} and show(unit, "ActiveState") == "active", BACK_SECONDS
    )


def post(body: dict[str, object], seconds: float = BACK_SECONDS) -> dict[str, object]:
    """POST /run and the answer, which must be 200."""
    answer = httpx.post(f"{URL}/run", json=body, timeout=seconds, trust_env=False)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)


def running(jobs: int) -> bool:
    """Wait until the executor runs this number of jobs; returns whether it did."""
    return machine.eventually(lambda: Installed().describe().running == jobs, BACK_SECONDS)


def hello(executor: Installed) -> Result:
    """Run a job through the executor's socket, which must succeed."""
    result = executor.run_job("print('hello')")
    assert result.ok() == b"hello\n"
    return result


def holders(token: bytes, folders: tuple[str, ...]) -> list[str]:
    """List the files below the folders whose contents or names contain the token."""
    found = []
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent) / name
                try:
                    if token in os.fsencode(name) or (path.is_file() and token in path.read_bytes()):
                        found.append(str(path))
                except OSError:
                    continue
    return found
