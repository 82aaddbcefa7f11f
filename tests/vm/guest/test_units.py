"""The units as installed: who may connect, what they may do, what systemd thinks of them."""

import grp
import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from support import installed
from support.installed import API, EXECUTOR, SOCKET

UNITS = ["sandrun.target", SOCKET, EXECUTOR, API]
SANDRUN = "sandrun"


def test_everything_runs_and_is_enabled() -> None:
    for unit in UNITS:
        assert installed.show(unit, "ActiveState") == "active"
        assert installed.show(unit, "UnitFileState") == "enabled"


def test_machine_is_what_these_tests_are_about() -> None:
    assert Path("/sys/fs/cgroup/cgroup.controllers").exists()
    assert os.readlink("/proc/1/exe").endswith("/systemd")


def test_socket_is_for_root_and_the_apis_group() -> None:
    state = os.stat("/run/sandrun/executor.sock")
    assert stat.S_IMODE(state.st_mode) == 0o660
    assert (state.st_uid, grp.getgrgid(state.st_gid).gr_name) == (0, SANDRUN)
    folder = os.stat("/run/sandrun")
    assert stat.S_IMODE(folder.st_mode) == 0o750
    assert (folder.st_uid, grp.getgrgid(folder.st_gid).gr_name) == (0, SANDRUN)


CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
    try:
        sock.connect("/run/sandrun/executor.sock")
    except PermissionError:
        sys.exit(13)
"""


@pytest.mark.parametrize(("user", "status"), [("nobody", 13), (SANDRUN, 0)])
def test_who_may_connect(user: str, status: int) -> None:
    command = ["setpriv", "--reuid", user, "--regid", "nogroup" if user == "nobody" else SANDRUN]
    done = subprocess.run(
        [*command, "--clear-groups", "/usr/bin/python3", "-ISc", CONNECT], check=False, timeout=60, cwd="/"
    )
    assert done.returncode == status


def test_api_has_no_privileges() -> None:
    status = Path(f"/proc/{installed.main_pid(API)}/status").read_text()
    assert re.search(r"^CapEff:\t0+$", status, re.M)
    assert re.search(r"^CapBnd:\t0+$", status, re.M)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
    assert re.search(r"^Seccomp:\t2$", status, re.M)
    assert "Uid:\t0" not in status


def test_executor_has_delegated_controllers_and_sits_in_a_leaf() -> None:
    unit = installed.cgroup(EXECUTOR)
    assert set((unit / "cgroup.subtree_control").read_text().split()) >= {"cpu", "memory", "pids"}
    assert (unit / "cgroup.procs").read_text() == ""
    assert (unit / "supervisor/cgroup.procs").read_text().split() == [str(installed.main_pid(EXECUTOR))]
    # One job out of memory is not the end of the others.
    assert (unit / "memory.oom.group").read_text() == "0\n"
    assert (unit / "pids.max").read_text() == "max\n"


def test_systemd_makes_the_subgroup_where_it_can() -> None:
    can = int(installed.run("systemctl", "--version").split()[1]) >= 254
    drop_in = Path(f"/etc/systemd/system/{EXECUTOR}.d/10-delegate-subgroup.conf")
    assert drop_in.exists() == can
    assert not can or installed.show(EXECUTOR, "DelegateSubgroup") == "supervisor"


def test_parked_sandboxes_are_in_limited_groups() -> None:
    groups = sorted(installed.cgroup(EXECUTOR).glob("sandrun-*/job-*"))
    assert groups
    for group in groups:
        assert (group / "memory.max").read_text() != "max\n"
        assert (group / "memory.swap.max").read_text() == "0\n"
        assert (group / "memory.oom.group").read_text() == "1\n"
        assert (group / "pids.max").read_text() != "max\n"
        assert not (group / "cpu.max").read_text().startswith("max")


def test_roots_environment_holds_what_it_declares() -> None:
    project = tomllib.loads(Path("/src/executor/pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=]", line)[0].replace("-", "_") for line in project["dependencies"]}
    folder = Path("/opt/sandrun/current/executor/lib").glob("python3.*/site-packages/*.dist-info")
    names = {path.name.split("-")[0].lower() for path in folder}
    # cffi and what it needs come with pynacl.
    assert names - {"cffi", "pycparser"} == {*declared, "sandrun_executor"}
    assert declared == {"msgspec", "pynacl", "pyseccomp"}


def test_what_root_has_others_run_is_in_the_apis_environment() -> None:
    python = "/opt/sandrun/current/executor/bin/python"
    program = (
        "from sandrun_executor import trusted_paths; print(trusted_paths.python(), trusted_paths.find_uv())"
    )
    api = Path("/opt/sandrun/current").resolve() / "api" / "bin"
    resolved = Path(python).parent.resolve() / "python"
    assert installed.run(str(resolved), "-I", "-c", program).split() == [f"{api}/python", f"{api}/uv"]
    probe = ["setpriv", "--reuid", SANDRUN, "--regid", SANDRUN, "--clear-groups", f"{api}/python"]
    assert (
        b"NVML"
        in subprocess.run(
            [*probe, "-P", "-m", "sandrun_helpers.gpu_probe"], check=True, capture_output=True, cwd="/"
        ).stdout
    )


def test_nobody_but_root_can_change_what_is_installed() -> None:
    others = ["(", "!", "-user", "root", "-o", "!", "-group", "root", "-o", "-perm", "/022", ")"]
    assert installed.run("find", "/opt/sandrun/", "!", "-type", "l", *others) == ""


def test_doctor_finds_nothing_wrong() -> None:
    assert installed.run("sandrun", "doctor").endswith("Jobs can run safely here.\n")


def test_systemd_finds_nothing_wrong() -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", *UNITS], check=False, capture_output=True, text=True, timeout=120
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "sandrun" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize(("unit", "most"), [(API, 1.5), (EXECUTOR, 6.6)])
def test_exposure(unit: str, most: float) -> None:
    """systemd's own score, from 0, best, to 10; the executor needs what makes sandboxes."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", unit],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert score is not None, done.stdout + done.stderr
    assert float(score[1]) <= most
