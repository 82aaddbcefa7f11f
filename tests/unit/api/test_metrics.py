"""Who may read the metrics, and how a new executor is noticed."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from starlette.requests import HTTPConnection

from sandrun_api.edge.clients import Clients
from sandrun_api.metrics import may_read
from sandrun_shared.executor_client import ExecutorClient, ExecutorLost
from sandrun_shared.settings import Api, networks

pytestmark = pytest.mark.anyio
NETWORKS = "10.1.0.0/16, fd00::/8"


def request(host: str | None, **headers: str) -> HTTPConnection:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "headers": raw, "client": None if host is None else (host, 1)})


def may(host: str | None, proxies: str = "", behind_proxy: bool = False, **headers: str) -> bool:
    api = Api(metrics_networks=NETWORKS, trusted_proxies=proxies, behind_proxy=behind_proxy)
    return may_read(request(host, **headers), api, Clients(networks(proxies, "proxies")))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.1.2.3", True),
        ("10.1.255.255", True),
        ("fd12::1", True),
        ("10.2.0.1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.2.0.1", False),
        ("192.0.2.1", False),
        ("local", False),
        (None, False),
    ],
)
def test_only_loopback_and_the_configured_networks(host: str | None, allowed: bool) -> None:
    assert may(host) is allowed


def test_behind_a_trusted_proxy_the_client_counts() -> None:
    proxies = "127.0.0.1/32, 192.0.2.0/24"
    assert may("127.0.0.1", proxies, x_forwarded_for="10.1.0.1")
    assert may("192.0.2.1", proxies, x_forwarded_for="127.0.0.9")
    assert not may("127.0.0.1", proxies, x_forwarded_for="198.51.100.1")
    assert not may("127.0.0.1", proxies, x_forwarded_for="127.0.0.1, 198.51.100.1")
    assert not may("127.0.0.1", proxies, x_forwarded_for="nobody")
    assert not may("127.0.0.1", proxies, forwarded="for=10.1.0.1")
    assert may("127.0.0.1", proxies, behind_proxy=True)


@pytest.mark.parametrize("name", ["x_forwarded_for", "forwarded", "x_real_ip", "via"])
def test_what_somebody_else_passed_on_is_refused(name: str) -> None:
    assert not may("127.0.0.1", **{name: "127.0.0.1"})
    assert not may("10.1.0.1", **{name: "127.0.0.1"})


def test_behind_an_unknown_proxy_loopback_proves_nothing() -> None:
    assert not may("127.0.0.1", behind_proxy=True)
    assert may("10.1.0.1", behind_proxy=True)


async def test_another_process_that_listens_is_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "executor.sock"
    client = ExecutorClient(path)
    restarts = []
    for _ in range(3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
            listener.bind(str(path))
            # listen() is what makes a process the peer (unix(7)); a child does it on the same socket.
            code = f"import socket; socket.socket(fileno={listener.fileno()}).listen(1)"
            command = [sys.executable, "-c", code]
            child = await asyncio.create_subprocess_exec(*command, pass_fds=[listener.fileno()])
            assert await child.wait() == 0
            for _ in range(2):
                asking = asyncio.create_task(client.describe())
                peer, _ = await asyncio.get_running_loop().sock_accept(listener)
                peer.close()
                with pytest.raises(ExecutorLost):
                    await asking
        path.unlink()
        restarts.append(client.restarts)
    assert restarts == [0, 1, 2]
