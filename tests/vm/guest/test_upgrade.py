"""Another release put in place while a job runs and clients come."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from support import installed, machine
from support.installed import API, EXECUTOR

PATIENCE_SECONDS = 1500.0
# It ends when this test says so: the service waits for it, however long making the release took.
LONG = """
import signal, sys, time

def end(*_):
    print("ended by itself")
    sys.exit()

signal.signal(signal.SIGUSR1, end)
time.sleep(3600)
"""


def waiting_jobs() -> list[int]:
    """Processes of jobs that handle SIGUSR1 (proc_pid_status(5))."""
    found = []
    for pid in installed.job_processes():
        try:
            caught = re.search(r"^SigCgt:\t(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
        except OSError:
            continue
        if caught is not None and int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1:
            found.append(pid)
    return found


def another_release(folder: Path) -> list[str]:
    """The command that installs one: of the package where that is what is installed, else of the same wheels."""
    packages = [str(path) for path in Path("/given/next").glob("*.deb")]
    if packages:
        return ["dpkg", "-i", *packages]
    shutil.copytree("/src/deploy", folder / "deploy")
    shutil.copytree("/src/docs", folder / "docs")
    shutil.copy("/src/LICENSE", folder / "LICENSE")
    with (folder / "deploy/release.sh").open("a") as script:
        script.write("# another\n")  # a release is known by all that it is made of
    return [str(folder / "deploy/install.sh"), "--wheels", "/given/wheels"]


def get(path: str) -> int:
    """The status that a new connection is answered with. Raises OSError, HTTPException."""
    connection = HTTPConnection("127.0.0.1", 8443, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


@pytest.mark.timeout(4 * PATIENCE_SECONDS)  # no measure of speed: the machine is emulated
def test_upgrade_lets_jobs_end_and_refuses_nobody(tmp_path: Path) -> None:
    release = Path("/opt/sandrun/current").resolve()
    pids = {unit: installed.main_pid(unit) for unit in (API, EXECUTOR)}
    command = another_release(tmp_path)
    answers: list[dict[str, object]] = []
    statuses: set[int] = set()
    broken: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.5):
            try:
                statuses.add(get("/"))
            except (OSError, HTTPException) as error:
                broken.append(repr(error))

    body: dict[str, object] = {"code": LONG, "timeout": 3600}
    threads = [
        threading.Thread(target=lambda: answers.append(installed.post(body, 2 * PATIENCE_SECONDS))),
        threading.Thread(target=ask),
    ]
    for thread in threads:
        thread.start()
    installing = None
    try:
        assert installed.running(1)
        installing = subprocess.Popen(command, cwd="/")
        assert machine.eventually(
            lambda: installing.poll() is not None or installed.show(API, "ActiveState") == "deactivating",
            PATIENCE_SECONDS,
        )
        assert installing.poll() is None
        assert installed.main_pid(API) == pids[API]  # it waits for its job
        assert answers == []
    finally:
        for pid in waiting_jobs():
            os.kill(pid, signal.SIGUSR1)
        status = installing.wait(PATIENCE_SECONDS) if installing is not None else None
        done.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert status == 0
    assert broken == []
    assert statuses == {200}
    assert [answer["verdict"] for answer in answers] == ["ok"]
    assert "ended by itself" in str(answers[0]["stdout"])
    assert Path("/opt/sandrun/current").resolve() != release
    assert not release.exists()
    for unit, pid in pids.items():
        assert installed.started_again(unit, pid)
    assert installed.post({"code": "print(1)"})["verdict"] == "ok"
