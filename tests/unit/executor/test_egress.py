"""What root accepts from a package proxy, and what it opens for one."""

import asyncio
import os
import socket
from pathlib import Path

import msgspec
import pytest

from sandrun_executor.packages import egress
from sandrun_executor.packages.egress import ProxyError
from sandrun_helpers.messages import Ready
from sandrun_shared.settings import Executor as Settings


def answer(data: bytes | None) -> Ready:
    """Let root read a proxy's answer; None stands for a proxy that ends without one."""

    async def scenario() -> Ready:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            if data is None:
                theirs.close()
            else:
                theirs.send(data)
            return await egress._answer(ours)

    return asyncio.run(scenario())


def test_an_answer() -> None:
    said = Ready(("registry.test",))
    assert answer(msgspec.msgpack.encode(said)) == said


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"ready",
        b"\x81\xa5hosts\xa1x",
        b"\x81\xa5hosts\x91\xa1\xff",
        b"\x81\xa5other\xc0",
        msgspec.msgpack.encode(Ready(problem="x" * (100 << 10))),
    ],
)
def test_what_is_no_answer(data: bytes | None) -> None:
    with pytest.raises(ProxyError, match="did not start"):
        answer(data)


def test_a_proxy_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            await egress._answer(ours)

    monkeypatch.setattr(egress, "_START_SECONDS", 0.05)
    with pytest.raises(ProxyError, match="did not start"):
        asyncio.run(scenario())


def test_files_are_opened_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text("certificates")
    (tmp_path / "netrc").write_text("passwords")
    ca, netrc = str(tmp_path / "ca.pem"), str(tmp_path / "netrc")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for setting in (netrc, "netrc"):
        with egress.files_of(Settings(package_ca=ca, package_netrc=setting)) as fds:
            assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == [ca, netrc]
            assert [os.lseek(fd, 0, os.SEEK_CUR) for fd in fds] == [0, 0]
            assert not any(os.get_inheritable(fd) for fd in fds)
    with egress.files_of(Settings(package_ca=ca)) as fds:
        assert fds == ()


def test_a_credential_of_the_proxies_unit_is_a_name_for_root(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    given = Settings(package_ca=str(tmp_path / "ca.pem"), package_netrc="x.netrc", package_proxy="/run/x")
    assert egress.credential_of(given) == "x.netrc"
    with egress.files_of(given) as fds:
        assert len(fds) == 1
    assert egress.credential_of(msgspec.structs.replace(given, package_proxy="")) == ""
    assert egress.credential_of(msgspec.structs.replace(given, package_netrc="/x/y")) == ""


def test_a_file_that_is_not_there_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    before = os.listdir("/proc/self/fd")
    given = Settings(package_ca=str(tmp_path / "ca.pem"), package_netrc=str(tmp_path / "none"))
    with pytest.raises(ProxyError, match="package_netrc: No such file"), egress.files_of(given):
        pass
    assert os.listdir("/proc/self/fd") == before
