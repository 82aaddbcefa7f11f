"""Each probe on plain files, both ways."""

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from sandrun_executor import preflight
from sandrun_executor.seccomp import audit
from sandrun_shared import kernel_log
from sandrun_shared.languages import LANGUAGES

V1_LINE = "cgroup {path} cgroup rw,relatime,{options} 0 0\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_check_has_a_name_of_its_own_and_a_remedy() -> None:
    checks = preflight.checks()
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.ok or check.mend for check in checks)


@pytest.mark.parametrize(
    ("release", "ok"),
    [("5.13.9", False), ("5.14.0-rc1+", True), ("6.1.0-18-amd64", True), ("10.0", True), ("odd", False)],
)
def test_kernel(release: str, ok: bool) -> None:
    assert preflight.kernel(release).ok is ok


def test_privileges(tmp_path: Path) -> None:
    full = write(tmp_path / "full", "Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n")
    none = write(tmp_path / "none", "CapEff:\t0000000000000000\n")
    container = write(tmp_path / "container", "CapEff:\t00000000a80425fb\n")
    assert preflight.privileges(full).ok
    assert "CAP_SYS_ADMIN" in preflight.privileges(none).found
    assert "CAP_SETUID" not in preflight.privileges(container).found
    assert not preflight.privileges(tmp_path / "absent").ok


def test_cgroup_v2(tmp_path: Path) -> None:
    write(tmp_path / "cgroup.controllers", "cpuset cpu io memory hugetlb pids\n")
    write(tmp_path / "cgroup.subtree_control", "")
    check = preflight.cgroups(tmp_path, tmp_path / "absent")
    assert (check.ok, check.found) == (True, "v2")


def test_cgroup_v1(tmp_path: Path) -> None:
    names = ["cpu,cpuacct", "memory", "pids", "name=systemd"]
    for name in names:
        (tmp_path / name).mkdir()
    lines = "".join(V1_LINE.format(path=tmp_path / name, options=name) for name in names)
    check = preflight.cgroups(tmp_path, write(tmp_path / "mounts", lines))
    assert (check.ok, check.found) == (True, "v1")


def test_cgroup_without_memory(tmp_path: Path) -> None:
    line = V1_LINE.format(path=tmp_path, options="cpu,cpuacct,pids")
    check = preflight.cgroups(tmp_path, write(tmp_path / "mounts", line))
    assert (check.ok, check.found) == (False, "no controller memory")


def test_namespaces(tmp_path: Path) -> None:
    for name in preflight.NAMESPACES:
        write(tmp_path / "ns" / name, "")
    write(tmp_path / "user" / "max_user_namespaces", "1000\n")
    assert preflight.namespaces(tmp_path / "ns", tmp_path / "user").ok
    write(tmp_path / "user" / "max_user_namespaces", "0\n")
    check = preflight.namespaces(tmp_path / "ns", tmp_path / "user")
    assert (check.ok, check.mend) == (False, "sysctl user.max_user_namespaces=10000")
    (tmp_path / "ns" / "time").unlink()
    assert "time" in preflight.namespaces(tmp_path / "ns", tmp_path / "user").found


def test_seccomp(tmp_path: Path) -> None:
    assert preflight.seccomp(write(tmp_path / "actions", "kill_process errno log allow\n")).ok
    assert not preflight.seccomp(tmp_path / "absent").ok


def test_libseccomp() -> None:
    def refuse(name: str) -> object:
        raise RuntimeError(f"{name}: Unable to find libseccomp")

    assert preflight.libseccomp(lambda name: None).ok
    assert preflight.libseccomp(refuse).mend == "apt-get install libseccomp2"


def test_landlock_is_advice() -> None:
    def refuse() -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    assert preflight.landlock(lambda: 3).found == "ABI 3"
    check = preflight.landlock(refuse)
    assert (check.ok, check.required) == (False, False)


def test_overlay(tmp_path: Path) -> None:
    assert preflight.overlay(write(tmp_path / "filesystems", "nodev\tproc\nnodev\toverlay\n")).ok
    assert not preflight.overlay(write(tmp_path / "none", "nodev\tproc\n")).ok


def test_swap(tmp_path: Path) -> None:
    head = "Filename\tType\tSize\tUsed\tPriority\n"
    off = write(tmp_path / "off", head)
    on = write(tmp_path / "on", head + "/dev/sda2 partition 1 0 -2\n")
    assert preflight.swap(off, "5.15.0").ok
    assert preflight.swap(on, "6.4.0").ok
    assert not preflight.swap(on, "6.1.0").ok


def test_interpreters(tmp_path: Path) -> None:
    write(tmp_path / "python3", "").chmod(0o700)
    write(tmp_path / "bash", "").chmod(0o755)
    write(tmp_path / "g++", "").chmod(0o755)
    write(tmp_path / "rustc", "").chmod(0o750)
    paths = [tmp_path / path.name for path in preflight.programs()]
    checks = {check.name: check for check in preflight.interpreters(paths)}
    assert (checks["python3"].ok, checks["python3"].required) == (False, True)
    assert checks["bash"].ok
    assert (checks["node"].ok, checks["node"].required) == (False, False)
    assert (checks["node"].found, checks["node"].mend) == ("not installed", f"install node in {tmp_path}")
    assert "ruby" not in checks
    assert (checks["g++"].ok, checks["g++"].required) == (True, False)
    assert (checks["rustc"].ok, checks["rustc"].mend) == (False, f"chmod o+x {tmp_path}/rustc")
    assert "gcc" not in checks


def test_every_program_of_the_languages_is_looked_for() -> None:
    """So that doctor knows what the executor offers (environments/interpreters.py)."""
    needed = {language.needs for language in LANGUAGES if language.needs}
    assert {str(path) for path in preflight.programs()} == needed
    here = {Path(path).name for path in needed if os.access(path, os.X_OK)}
    named = {check.name for check in preflight.checks() if check.ok}
    assert here <= named
    assert {path.name for path in preflight.programs()} >= preflight.BASE_INTERPRETERS


def test_the_daemon_does_not_load_the_checks() -> None:
    code = "import sys, sandrun_executor.__main__, sandrun_executor.daemon; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "sandrun_executor.daemon" in done.stdout.split()
    # Nor what reads passwords, nor what runs interpreters.
    others = {"sandrun_executor.preflight", "netrc", "sandrun_helpers.versions"}
    assert not others & set(done.stdout.split())


def test_a_filter_that_can_be_installed() -> None:
    assert preflight.filters() == preflight.Check("filters", True, True, "one more can be installed")


def test_a_filter_for_which_there_is_no_room() -> None:
    def refuse() -> None:
        raise OSError(524, "Unknown error 524")

    check = preflight.filters(refuse)
    assert (check.ok, check.required) == (False, True)
    assert "step seccomp failed with errno 524" in check.found
    assert "net.core.bpf_jit_limit" in check.mend


def test_who_tries_has_no_privileges_and_nothing_of_ours() -> None:
    def look() -> None:
        if (
            os.geteuid() == 0 or os.getgroups() or len(os.listdir("/proc/self/fd")) > 5
        ):  # and one to list them
            raise OSError(errno.EEXIST, "something is left")

    assert preflight.filters(look).ok


def test_a_filter_whose_installation_never_returns() -> None:
    """Not even when it cannot be killed: SIGKILL is not sent here."""
    pids: list[int] = []
    with (
        patch.object(os, "kill", lambda pid, _signal: pids.append(pid)),
        patch.object(preflight, "DEATH_SECONDS", 0.01),
    ):
        check = preflight.filters(signal.pause, 0.01)
    os.kill(pids[0], signal.SIGKILL)
    os.waitpid(pids[0], 0)
    assert not check.ok
    assert "does not return" in check.found
    assert "state D" in check.mend


def test_kernel_settings(tmp_path: Path) -> None:
    wanted = {name: tmp_path.joinpath(*name.split(".")) for name in kernel_log.WANTED}
    for path in wanted.values():
        write(path, "0\n")
    assert preflight.kernel_settings(tmp_path).ok
    write(wanted["vm.oom_dump_tasks"], "1\n")
    check = preflight.kernel_settings(tmp_path)
    assert not check.ok
    assert not check.required
    assert "vm.oom_dump_tasks = 1" in check.found
    assert check.mend == "sysctl -w vm.oom_dump_tasks=0"
    assert preflight.kernel_settings(tmp_path / "absent").ok  # a kernel that cannot say it


def test_installed_settings_are_those_wanted() -> None:
    lines = (Path(__file__).parents[3] / "deploy/systemd/sysctl.conf").read_text().splitlines()
    settings = [line.split(" = ") for line in lines if not line.startswith("#")]
    assert dict(settings) == kernel_log.WANTED


@pytest.mark.parametrize(("pattern", "ok"), [("core\n", True), ("|/usr/share/apport/apport -p%p\n", False)])
def test_core_pattern(tmp_path: Path, pattern: str, ok: bool) -> None:
    assert preflight.core_pattern(write(tmp_path / "core_pattern", pattern)).ok is ok


def test_auditing() -> None:
    def refuse() -> bool:
        raise OSError(errno.EPERM, "not for you")

    assert preflight.auditing(lambda: False).ok
    assert not preflight.auditing(lambda: True).ok
    assert "not for you" in preflight.auditing(refuse).found


class FakeAudit:
    """The kernel's end of a netlink socket."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __enter__(self) -> "FakeAudit":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def sendto(self, data: bytes, address: tuple[int, int]) -> None:
        assert struct.unpack("=IHHII", data)[:3] == (16, 1000, 1)
        assert address == (0, 0)

    def recv(self, size: int) -> bytes:
        return self._answer[:size]


def answered(kind: int, *words: int) -> bytes:
    body = struct.pack(f"={len(words)}i", *words)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_audit_as_the_kernel_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, enabled in ((answered(1000, 0, 1, 1, 0), True), (answered(1000, 0, 0, 1, 0), False)):
        monkeypatch.setattr(socket, "socket", lambda *_, answer=answer: FakeAudit(answer))
        assert audit.enabled() is enabled
    monkeypatch.setattr(socket, "socket", lambda *_: FakeAudit(answered(2, -errno.EPERM)))
    with pytest.raises(OSError, match="refused"):
        audit.enabled()

    def absent(*_: object) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(socket, "socket", absent)
    assert not audit.enabled()


LIMIT = "Limit                     Soft Limit           Hard Limit           Units\nMax stack size            8388608              {}            bytes\n"


@pytest.mark.parametrize(
    ("hard", "capabilities", "ok"),
    [
        ("unlimited", "0000000000000000", True),
        ("16777216", "000001fffeffffff", False),
        ("16777216", "000001ffffffffff", True),
    ],
)
def test_stack(tmp_path: Path, hard: str, capabilities: str, ok: bool) -> None:
    status = write(tmp_path / "status", f"Name:\tx\nCapEff:\t{capabilities}\n")
    check = preflight.stack(write(tmp_path / "limits", LIMIT.format(hard)), status)
    assert (check.ok, check.required) == (ok, False)
    assert ok or ("16384 KiB" in check.found and "LimitSTACK" in check.mend)
