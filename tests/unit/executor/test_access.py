"""The executor's socket: its mode, its group, who may use it."""

import grp
import os
import pwd
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandrun_executor.access import Access, AccessDenied, listen

ME = pwd.getpwuid(os.geteuid()).pw_name
root = pytest.mark.skipif(
    os.geteuid() != 0 and os.environ.get("SANDRUN_SYSTEM_MUST_WORK") != "1", reason="needs root"
)


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_PID", raising=False)
    monkeypatch.delenv("LISTEN_FDS", raising=False)


def test_root_and_the_user_may_connect() -> None:
    access = Access.for_user("nobody")
    nobody = pwd.getpwnam("nobody").pw_uid
    assert access.uids == {0, nobody}
    access.check(0)
    access.check(nobody)
    for uid in (1, 1000, nobody - 1, 2**32 - 1):
        with pytest.raises(AccessDenied, match=str(uid)):
            access.check(uid)


def test_unknown_user() -> None:
    with pytest.raises(KeyError):
        Access.for_user("no-such-user")


def test_mode_is_right_from_the_start(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with listen(tmp_path / "deep/er/socket", ME, 5):
            found = (tmp_path / "deep/er/socket").stat()
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o660
        assert os.umask(0) == 0  # as it was
    finally:
        os.umask(mask)


@root
def test_group_is_the_users(tmp_path: Path) -> None:
    group = os.getegid()
    with listen(tmp_path / "socket", "nobody", 5):
        assert grp.getgrgid((tmp_path / "socket").stat().st_gid).gr_gid == pwd.getpwnam("nobody").pw_gid
    assert os.getegid() == group


def test_packets_arrive(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listen(path, ME, 5) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        assert not listener.get_inheritable()
        client.connect(str(path))
        client.send(b"one")
        client.send(b"two")
        with listener.accept()[0] as accepted:
            assert (accepted.recv(100), accepted.recv(100)) == (b"one", b"two")


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen(path, ME, 5).close()
    before = path.stat().st_ino, path.stat().st_ctime_ns
    with listen(path, ME, 5), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        assert (path.stat().st_ino, path.stat().st_ctime_ns) != before
        client.connect(str(path))


def test_failed_bind_leaves_umask_and_group(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    group, before = os.getegid(), os.listdir("/proc/self/fd")
    try:
        with pytest.raises(OSError, match="too long"):
            listen(tmp_path / ("x" * 200), ME, 5)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)
    assert os.getegid() == group
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_unknown_user_leaves_umask(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        with pytest.raises((KeyError, OSError)):
            listen(tmp_path / "socket", "no-such-user", 5).close()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)


def test_systemds_socket_is_used(tmp_path: Path) -> None:
    code = (
        "import os, socket, sys\n"
        "from pathlib import Path\n"
        "from sandrun_executor.access import listen\n"
        "made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "made.bind(sys.argv[1]); made.listen(5)\n"
        "if made.fileno() != 3: os.dup2(made.fileno(), 3)\n"
        "made.detach()\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
        "used = listen(Path(sys.argv[2]), 'root', 5)\n"
        "print(used.fileno(), used.getsockname() == sys.argv[1], os.path.exists(sys.argv[2]))\n"
    )
    paths = [str(tmp_path / "given"), str(tmp_path / "own")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *paths], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "3 True False\n", done.stderr


@pytest.mark.parametrize(("pid", "count"), [("1", "1"), (None, "2"), (None, "0"), ("", "1")])
def test_environment_meant_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: str | None, count: str
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid is None else pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    with listen(tmp_path / "socket", ME, 5) as listener:
        assert listener.getsockname() == str(tmp_path / "socket")
