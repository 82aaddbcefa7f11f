"""Messages to the service manager, and descriptors from it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_api.edge.listener import ConnectionLimiter, listen
from sandrun_shared.notify import is_service, notify, passed_fds, watchdog_seconds
from sandrun_shared.settings import Api


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield heard


def test_lines_and_descriptors_arrive(manager: socket.socket, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        notify("FDSTORE=1\nFDNAME=x", [file.fileno()])
        data, fds, _, _ = socket.recv_fds(manager, 100, 4)
        assert data == b"FDSTORE=1\nFDNAME=x"
        assert [os.path.samestat(os.fstat(fd), os.fstat(file.fileno())) for fd in fds] == [True]
        for fd in fds:
            os.close(fd)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "absent"))
    notify("READY=1")


@pytest.mark.parametrize(
    ("pid", "count"), [("0", "1"), (str(os.getpid()), ""), (str(os.getpid()), "x"), ("", "1")]
)
def test_descriptors_of_others_are_left_alone(pid: str, count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    assert passed_fds() == []


def test_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_seconds() == 15
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_seconds() is None


def kept_by(manager: socket.socket) -> list[int]:
    """Descriptors that the manager was given to keep."""
    assert manager.recv(100) == b"FDSTOREREMOVE=1\nFDNAME=http"
    data, fds, _, _ = socket.recv_fds(manager, 100, 4)
    assert data == b"FDSTORE=1\nFDNAME=http"
    return fds


def test_a_listener_outlives_its_server(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = listen("127.0.0.1", 0, ConnectionLimiter(Api()))
    address = first.getsockname()
    (kept,) = kept_by(manager)
    first.close()
    with socket.create_connection(address, 10) as early:  # nobody serves, and nobody is refused
        monkeypatch.setattr("sandrun_api.edge.listener.passed_fds", lambda: [kept])
        (second,) = listen(*address, ConnectionLimiter(Api()))
        assert second.fileno() == kept
        second.setblocking(True)
        accepted, peer = second.accept()
        assert peer == early.getsockname()
        accepted.close()
    second.close()
    for fd in kept_by(manager):
        os.close(fd)


@pytest.mark.parametrize(("before", "after"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_a_kept_listener_of_another_address_is_given_up(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    (first,) = listen(before, 0, ConnectionLimiter(Api()))
    port = first.getsockname()[1]
    (kept,) = kept_by(manager)  # which the manager goes on keeping until it is told
    passed = os.dup(kept)
    first.close()
    monkeypatch.setattr("sandrun_api.edge.listener.passed_fds", lambda: [passed])
    (second,) = listen(after, port, ConnectionLimiter(Api()))
    assert second.getsockname() == (after, port)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(passed)
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        second.setblocking(True)
        accepted, peer = second.accept()
        assert peer == client.getsockname()
        accepted.close()
    second.close()
    for fd in (kept, *kept_by(manager)):
        os.close(fd)


def test_a_service_is_told_from_a_terminal() -> None:
    error = os.fstat(2)
    assert not is_service({})
    assert not is_service({"INVOCATION_ID": "0" * 32, "SYSTEMD_EXEC_PID": "1", "JOURNAL_STREAM": "1:1"})
    assert is_service({"NOTIFY_SOCKET": "/run/notify"})
    assert is_service({"SYSTEMD_EXEC_PID": str(os.getpid())})
    assert is_service({"JOURNAL_STREAM": f"{error.st_dev}:{error.st_ino}"})
