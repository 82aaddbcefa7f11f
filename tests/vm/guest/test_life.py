"""Crashes, stops, and what must be left of them: nothing."""

import os
import secrets
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from support import installed, machine
from support.installed import API, BACK_SECONDS, EXECUTOR, SOCKET, URL, Installed

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
executor = Installed()


def restarts(unit: str) -> int:
    return int(installed.show(unit, "NRestarts"))


class Asking:
    """Make a request that sleeps, in the background; returns how it ends."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response] = []
        self.errors: list[httpx.HTTPError] = []
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self.answers.append(
                httpx.post(f"{URL}/run", json={"code": SLEEPER}, timeout=BACK_SECONDS, trust_env=False)
            )
        except httpx.HTTPError as error:
            self.errors.append(error)

    def end(self) -> None:
        self._thread.join(BACK_SECONDS)
        assert not self._thread.is_alive()


def say_how_long(unit: str, began: float, capsys: pytest.CaptureFixture[str]) -> None:
    """For a person to compare with 3 s on a real machine; an emulated one is not measured."""
    with capsys.disabled():
        print(f"\n{unit} served again {time.monotonic() - began:.1f} s after SIGKILL")


def test_executor_killed_under_load_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Clients are told, what waits in the socket meanwhile is served, and nothing of the dead one is left."""
    asking = Asking()
    jobs = [executor.start_job(SLEEPER).printed(b"up") for _ in range(3)]
    # Taken is not yet under way: the api's one has its processes a little later.
    assert machine.eventually(lambda: len(installed.job_processes()) >= 4, BACK_SECONDS)
    before, pid, count = installed.job_processes(), installed.main_pid(EXECUTOR), restarts(EXECUTOR)
    mounts = machine.mounts()
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    for job in jobs:
        with pytest.raises(OSError, match=r"hung up|reset"):
            job.wait()
    waiting = executor.start_job("print('served')")  # systemd holds the socket: not refused
    assert waiting.wait().ok() == b"served\n"
    say_how_long(EXECUTOR, began, capsys)
    asking.end()
    assert [answer.status_code for answer in asking.answers] == [503]
    assert "executor" in asking.answers[0].json()["reason"]
    assert installed.started_again(EXECUTOR, pid)
    assert restarts(EXECUTOR) == count + 1
    assert machine.eventually(lambda: before.isdisjoint(installed.job_processes()), BACK_SECONDS)
    for group in installed.cgroup(EXECUTOR).rglob("cgroup.procs"):
        assert before.isdisjoint(map(int, group.read_text().split()))
    assert machine.mounts() == mounts
    assert installed.post({"code": "print(1)"})["verdict"] == "ok"


def test_api_killed_under_load_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Its jobs end with it."""
    asking = Asking()
    assert installed.running(1)
    pid = installed.main_pid(API)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    asking.end()
    assert (asking.answers, len(asking.errors)) == ([], 1)
    assert installed.running(0)
    assert installed.post({"code": "print(1)"})["verdict"] == "ok"  # it waits: systemd holds this socket too
    say_how_long(API, began, capsys)
    assert installed.started_again(API, pid)


def test_stopped_with_running_jobs_leaves_nothing() -> None:
    jobs = [executor.start_job(SLEEPER).printed(b"up") for _ in range(3)]
    installed.run("systemctl", "stop", SOCKET, EXECUTOR)
    assert [job.wait().outcome.verdict for job in jobs] == ["cancelled"] * 3
    assert installed.job_processes() == set()
    assert not installed.cgroup(EXECUTOR).exists()
    assert list(Path("/sys/fs/cgroup").rglob("sandrun-*/job-*")) == []
    assert not Path("/run/sandrun/executor.sock").exists()
    assert installed.show(EXECUTOR, "Result") == "success"
    assert not [line for line in machine.mounts() if "sandrun" in line and "/opt" not in line]
    installed.run("systemctl", "start", SOCKET)
    installed.hello(executor)  # the socket alone starts it


def test_nothing_of_a_job_is_written_anywhere() -> None:
    """A word that only jobs and requests hold is in no log and in no file."""
    canary = "canary" + secrets.token_hex(8)
    code = f"import sys\nprint('{canary}')\nprint('{canary}', file=sys.stderr)\nopen('{canary}', 'w').write('{canary}')\n"
    body = {
        "code": code,
        "args": [canary],
        "stdin": canary,
        "env": {"WORD": canary},
        "files": {canary: canary},
    }
    assert canary in str(installed.post(body))
    failing = {"code": f"raise RuntimeError('{canary}')"}
    assert installed.post(failing)["verdict"] == "nonzero_exit"
    killed = {"code": f"word = '{canary}'\nx = []\nwhile True: x.append(bytearray(1 << 20))", "memory_mb": 32}
    assert installed.post(killed)["verdict"] == "memory_limit"
    with httpx.Client(base_url=URL, timeout=BACK_SECONDS, trust_env=False) as client:
        assert client.get(f"/status/{canary}").status_code == 404
        assert client.get(f"/{canary}?{canary}", headers={"User-Agent": canary}).status_code == 404
        assert client.post("/run", json={"code": "1", canary: canary}).status_code == 400
        assert client.post("/submit", content=canary).status_code in {400, 415}
    result = executor.run_job(f"raise RuntimeError('{canary}')", args=[canary])
    assert canary.encode() in result.stderr
    installed.run("journalctl", "--sync")
    command = ["journalctl", "--boot", "--all", "--output", "export"]
    journal = subprocess.run(command, check=True, capture_output=True, timeout=300).stdout
    assert b"sandrun-executor.service" in journal
    assert canary.encode() not in journal
    assert installed.holders(canary.encode(), ("/run", "/var", "/tmp", "/etc", "/opt/sandrun", "/root")) == []
