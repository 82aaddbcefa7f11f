"""Another release put in place while a job runs and clients come."""

import shutil
import subprocess
import threading
from pathlib import Path

import httpx

from support import installed
from support.installed import API, EXECUTOR, URL

LONG = "import time\nprint('up', flush=True)\ntime.sleep(20)\nprint('ended by itself')"


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
        while not done.is_set():
            try:
                httpx.get(f"{URL}/", timeout=300, trust_env=False)
            except httpx.ConnectError as error:
                refused.append(str(error))

    job = threading.Thread(target=lambda: answers.append(installed.post({"code": LONG}, 400)))
    asking = threading.Thread(target=ask)
    job.start()
    asking.start()
    assert installed.running(1)
    try:
        subprocess.run(
            [tmp_path / "deploy/install.sh", "--wheels", "/given/wheels"], check=True, timeout=500, cwd="/"
        )
    finally:
        done.set()
        job.join(400)
        asking.join(400)
    assert refused == []
    assert [answer["verdict"] for answer in answers] == ["ok"]
    assert "ended by itself" in str(answers[0]["stdout"])
    assert Path("/opt/sandrun/current").resolve() != release
    assert not release.exists()
    for unit, pid in pids.items():
        assert installed.started_again(unit, pid)
    assert installed.post({"code": "print(1)"})["verdict"] == "ok"
