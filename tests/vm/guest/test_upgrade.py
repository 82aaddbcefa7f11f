"""Another release put in place while a job runs and clients come."""

import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from support import installed, machine
from support.installed import API, EXECUTOR, URL

INSTALL_SECONDS = 2400.0
# It ends when this test says so: the service waits for it, however long making the release took.
LONG = (
    "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
    "signal.sigwait([signal.SIGUSR1])\nprint('ended by itself')"
)


def waiting_jobs() -> list[int]:
    """Processes of jobs that block SIGUSR1 (proc_pid_status(5))."""
    found = []
    for pid in installed.job_processes():
        try:
            blocked = re.search(r"^SigBlk:\t(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
        except OSError:
            continue
        if blocked is not None and int(blocked[1], 16) >> (signal.SIGUSR1 - 1) & 1:
            found.append(pid)
    return found


@pytest.mark.timeout(4 * INSTALL_SECONDS)  # no measure of speed: the machine is emulated
def test_upgrade_lets_jobs_end_and_refuses_nobody(tmp_path: Path) -> None:
    release = Path("/opt/sandrun/current").resolve()
    pids = {unit: installed.main_pid(unit) for unit in (API, EXECUTOR)}
    # The same wheels under a changed script are another release.
    shutil.copytree("/src/deploy", tmp_path / "deploy")
    shutil.copytree("/src/docs", tmp_path / "docs")
    shutil.copy("/src/LICENSE", tmp_path / "LICENSE")
    with (tmp_path / "deploy/release.sh").open("a") as script:
        script.write("# another\n")
    answers: list[dict[str, object]] = []
    refused: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.5):
            try:
                httpx.get(f"{URL}/", timeout=300, trust_env=False)
            except httpx.ConnectError as error:
                refused.append(str(error))

    body: dict[str, object] = {"code": LONG, "timeout": 3600}
    job = threading.Thread(target=lambda: answers.append(installed.post(body, 2 * INSTALL_SECONDS)))
    asking = threading.Thread(target=ask)
    job.start()
    asking.start()
    assert installed.running(1)
    command = [tmp_path / "deploy/install.sh", "--wheels", "/given/wheels"]
    with subprocess.Popen(command, cwd="/") as installing:
        try:
            assert machine.eventually(
                lambda: installing.poll() is not None or installed.show(API, "ActiveState") == "deactivating",
                INSTALL_SECONDS,
            )
            assert installing.poll() is None
            assert installed.main_pid(API) == pids[API]  # it waits for its job
            assert answers == []
        finally:
            for pid in waiting_jobs():
                os.kill(pid, signal.SIGUSR1)
            status = installing.wait(INSTALL_SECONDS)
            done.set()
            job.join(INSTALL_SECONDS)
            asking.join(INSTALL_SECONDS)
    assert status == 0
    assert refused == []
    assert [answer["verdict"] for answer in answers] == ["ok"]
    assert "ended by itself" in str(answers[0]["stdout"])
    assert Path("/opt/sandrun/current").resolve() != release
    assert not release.exists()
    for unit, pid in pids.items():
        assert installed.started_again(unit, pid)
    assert installed.post({"code": "print(1)"})["verdict"] == "ok"
