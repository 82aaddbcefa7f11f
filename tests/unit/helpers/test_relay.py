"""The package proxy's HTTP, over a socket."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

import pytest

from sandrun_helpers import addresses, relay
from sandrun_helpers.relay import Relay, Rules
from support.tls import greeting

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HOST = "registry.test"
CONNECT = b"CONNECT registry.test:PORT HTTP/1.1\r\n\r\n"


async def _ask(
    monkeypatch: pytest.MonkeyPatch, rules: Rules, asked: bytes, far: Talk | None = None, *, end: bool = True
) -> bytes:
    """What the proxy answers; far is what listens where every name leads."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    served = await asyncio.start_server(far or silent, "127.0.0.1", 0)
    monkeypatch.setattr(relay, "PORT", served.sockets[0].getsockname()[1])

    async def resolve(*_: object) -> list[object]:
        return [ipaddress.ip_address("127.0.0.1")]

    monkeypatch.setattr(addresses, "resolve", resolve)
    proxy = await asyncio.start_server(Relay(rules).serve, "127.0.0.1", 0, limit=relay.MAX_HEAD)
    async with served, proxy, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname())
        writer.write(asked.replace(b":PORT", b":%d" % relay.PORT))
        if end:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer


def _rules(**more: object) -> Rules:
    return Rules(frozenset({HOST}), 1 << 20, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        (b"CONNECT other.test:PORT", 403, b"not on this server's list"),
        (b"CONNECT registry.test:22", 403, b"port 22"),
        (b"CONNECT registry.test:x", 403, b"port None"),
        (b"CONNECT 127.0.0.1:PORT", 403, b"not on this server's list"),
        (b"CONNECT [::1]:PORT", 403, b"not the name of a host"),
        (b"CONNECT registry.test.evil.test:PORT", 403, b"not on this server's list"),
        (b"GET http://other.test/", 403, b"not on this server's list"),
        (b"GET http://registry.test:8080/", 403, b"port 8080"),
        (b"GET http://registry.test/", 403, b"only https"),
        (b"GET https://registry.test/", 400, b"not a request to a proxy"),
        (b"GET /", 400, b"not a request to a proxy"),
        (b"POST http://registry.test/", 403, b"only CONNECT, GET and HEAD"),
        (b"NONSENSE", 400, b"not a request"),
    ],
)
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, asked: bytes, status: int, why: bytes) -> None:
    version = b"" if asked == b"NONSENSE" else b" HTTP/1.1"
    answer = asyncio.run(_ask(monkeypatch, _rules(), asked + version + b"\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert why in answer


def test_a_tunnel_passes_bytes_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read())[::-1])
        writer.close()

    sent = greeting(HOST) + b"quiet"
    asked = b"CONNECT Registry.test.:PORT HTTP/1.1\r\nUser-Agent: x\r\n\r\n" + sent
    answer = asyncio.run(_ask(monkeypatch, _rules(), asked, echo))
    assert answer == b"HTTP/1.1 200 Connected\r\n\r\n" + sent[::-1]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (greeting("other.test"), "its TLS greeting is for another host"),
        (greeting(None), "its TLS greeting does not say which host it wants (SNI)"),
        (b"GET / HTTP/1.1\r\nHost: registry.test\r\n\r\n", "the data are not TLS"),
    ],
)
def test_a_tunnel_is_for_its_host_alone(monkeypatch: pytest.MonkeyPatch, sent: bytes, why: str) -> None:
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    rules = _rules()
    asked = b"CONNECT registry.test:PORT HTTP/1.1\r\n\r\n" + sent
    answer = asyncio.run(_ask(monkeypatch, rules, asked, hear))
    assert answer == b"HTTP/1.1 200 Connected\r\n\r\n"
    assert rules.notes == [f"refused registry.test: {why}"]
    assert b"".join(heard) == b""


def test_a_tunnel_has_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
        except OSError:
            writer.close()

    rules = _rules()
    answer = asyncio.run(_ask(monkeypatch, rules, CONNECT + greeting(HOST), flood, end=False))
    assert len(answer) <= (1 << 20) + 100
    assert rules.notes == ["refused: there are more bytes than an installation may take"]


def test_a_tunnel_in_which_nothing_moves_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(relay, "IDLE_SECONDS", 0.05)
    asked = CONNECT + greeting(HOST)
    answer = asyncio.run(_ask(monkeypatch, _rules(), asked, silent, end=False))
    assert answer == b"HTTP/1.1 200 Connected\r\n\r\n"
    monkeypatch.setattr(relay, "HEAD_SECONDS", 0.05)
    answer = asyncio.run(_ask(monkeypatch, _rules(), CONNECT, silent, end=False))
    assert answer == b"HTTP/1.1 200 Connected\r\n\r\n"


def test_a_head_is_short_and_comes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    long = b"GET http://registry.test/" + b"x" * relay.MAX_HEAD
    assert asyncio.run(_ask(monkeypatch, _rules(), long, end=False)) == b""
    monkeypatch.setattr(relay, "HEAD_SECONDS", 0.05)
    assert asyncio.run(_ask(monkeypatch, _rules(), b"GET", end=False)) == b""


def test_connections_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_CONNECTIONS", 0)
    answer = asyncio.run(_ask(monkeypatch, _rules(), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")


def test_notes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = _rules()
    for number in range(30):
        rules.refused(f"host{number}.test", "why")
    answer = asyncio.run(_ask(monkeypatch, rules, b"GET http://proxy.sandrun.invalid/ HTTP/1.1\r\n\r\n"))
    lines = answer.partition(b"\r\n\r\n")[2].splitlines()
    assert len(lines) == relay.MAX_NOTES
    assert lines[0] == b"refused host0.test: why"


class _Plain:
    """Stands for a TLS context where the test looks at what is sent."""


def test_a_request_gets_the_credentials_and_loses_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        writer.close()

    real = asyncio.open_connection

    async def plainly(host: str, port: int, **options: object) -> object:
        if options.pop("ssl", None) is not None:
            assert options.pop("server_hostname") == HOST
        options.pop("server_hostname", None)
        return await real(host, port, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "open_connection", plainly)
    rules = _rules(credentials={HOST: ("user", "secret")}, tls=_Plain())
    asked = (
        b"GET http://registry.test/simple/?a=b HTTP/1.1\r\nHost: evil.test\r\nauthorization: Basic mine\r\n"
        b"Proxy-Authorization: x\r\nConnection: keep-alive\r\nContent-Length: 9\r\nAccept: text/html\r\n\r\nsmuggled!"
    )
    assert asyncio.run(_ask(monkeypatch, rules, asked, answer)).endswith(b"\r\n\r\nhi")
    assert seen == [
        b"GET /simple/?a=b HTTP/1.1\r\nHost: registry.test\r\nConnection: close\r\nAccept: text/html\r\n"
        b"Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n"
    ]
