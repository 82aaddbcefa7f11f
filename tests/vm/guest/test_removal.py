"""Taken away while a job runs, and nothing of it stays but what was changed here."""

import glob
import pwd
import subprocess
from pathlib import Path

import pytest

from support import installed, machine
from support.installed import API, BACK_SECONDS, EXECUTOR, SOCKET, Installed

PACKAGE = "sandrun-server"
# Of the checks' own settings; everything else that has our name is ours.
KEPT = {f"/etc/systemd/system/{unit}.d" for unit in (API, EXECUTOR)}
PLACES = (
    "/etc/*sandrun*",
    "/etc/*/sandrun*",
    "/etc/systemd/system/*sandrun*",
    "/etc/systemd/system/*.wants/*sandrun*",
    "/opt/sandrun*",
    "/run/sandrun*",
    "/usr/*bin/sandrun*",
    "/usr/lib/*/*sandrun*",
    "/usr/lib/systemd/system/*sandrun*",
    "/usr/lib/sandrun*",
    "/usr/local/*bin/sandrun*",
    "/usr/share/doc/sandrun*",
    "/var/lib/*sandrun*",
)


def places() -> set[str]:
    """What has our name, and is no document of dpkg's own."""
    return {path for place in PLACES for path in glob.glob(place)} - KEPT


def test_nothing_is_left() -> None:
    job = Installed().start_job("import time; print('up', flush=True); time.sleep(600)").printed(b"up")
    assert places()
    asked = subprocess.run(["dpkg-query", "-W", PACKAGE], check=False, capture_output=True)
    if asked.returncode == 0:
        installed.run("dpkg", "--purge", PACKAGE)
    else:
        installed.run("/src/deploy/install.sh", "--uninstall")
    assert job.wait().outcome.verdict == "cancelled"
    assert places() == set()
    units = (API, EXECUTOR, SOCKET, "sandrun.target")
    assert installed.run("systemctl", "list-units", "--all", "--plain", "--no-legend", *units) == ""
    assert machine.eventually(lambda: installed.job_processes() == set(), BACK_SECONDS)
    assert list(Path("/sys/fs/cgroup").rglob("sandrun-*/job-*")) == []
    assert not [line for line in machine.mounts() if "sandrun" in line]
    with pytest.raises(KeyError):
        pwd.getpwnam("sandrun")
