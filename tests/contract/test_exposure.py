"""Attacks on the server's patience, with raw sockets; every time-out is short, and the server acts on it."""

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import sys
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
import websockets

from sandrun_shared.settings import Api, Executor, Quota, Settings
from support import programs, tls
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
SHORT = 0.1
STRICT = Api(
    head_seconds=SHORT,
    idle_seconds=SHORT,
    body_seconds=SHORT,
    tls_handshake_seconds=SHORT,
    head_bytes=4096,
    connections_per_address=4,
)


def settings_of(fake: FakeExecutor, api: Api) -> Settings:
    return Settings(executor=Executor(socket=str(fake.path)), quota=Quota(0, 0, 0, 0), api=api)


@pytest.fixture
async def strict(fake: FakeExecutor) -> AsyncIterator[Live]:
    """A server without patience."""
    async with serving(settings_of(fake, STRICT)) as server:
        yield server


async def ask(live: Live, data: bytes, deadline: float) -> bytes:
    """Everything that comes until the server ends the connection. Raises TimeoutError if it does not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    writer.write(data)
    try:
        async with asyncio.timeout(deadline):
            return await reader.read()
    finally:
        writer.close()


def error_of(answer: bytes) -> tuple[int, dict[str, object]]:
    """The status and the body of an answer, whose headers are those of every error."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert "connection: close" in lines
    assert "content-type: application/json" in lines
    assert "x-content-type-options: nosniff" in lines
    return int(lines[0].split()[1]), json.loads(body)


async def test_silence_is_not_waited_for(strict: Live, deadline: float) -> None:
    assert await ask(strict, b"", deadline) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\npass",
        b"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
    ],
)
async def test_a_request_that_is_never_complete(strict: Live, data: bytes, deadline: float) -> None:
    status, body = error_of(await ask(strict, data, deadline))
    assert (status, body["status"], body["error"]) == (408, 408, "Request timeout")
    assert strict.server.server_state.tasks == set()


async def test_an_idle_connection_ends(strict: Live, deadline: float) -> None:
    answer = await ask(strict, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", deadline)
    assert answer.startswith(b"HTTP/1.1 200")


async def test_the_rest_of_a_refused_body_is_not_waited_for(strict: Live, deadline: float) -> None:
    data = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx"
    reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
    writer.write(data)
    assert (await reader.readline()).startswith(b"HTTP/1.1 404")
    with contextlib.suppress(ConnectionResetError):  # what was not read makes the kernel reset it
        async with asyncio.timeout(deadline):
            await reader.read()
    writer.close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET /" + b"x" * 4096 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 1000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: y\r\n\r\n", 400),
        (b"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /run HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x, chunked\r\n\r\n", 501),
    ],
)
async def test_what_is_no_request_or_too_long(strict: Live, data: bytes, code: int, deadline: float) -> None:
    status, body = error_of(await ask(strict, data, deadline))
    assert (status, body["status"]) == (code, code)
    assert {"error", "reason", "type", "title", "detail"} <= body.keys()


async def test_an_address_that_is_too_long(live_fake: Live) -> None:
    answer = await live_fake.client.get("/?" + "x" * 9000)
    assert (answer.status_code, answer.json()["error"]) == (414, "Address too long")


async def test_one_address_has_only_so_many_connections(
    strict: Live, fake: FakeExecutor, deadline: float
) -> None:
    """Slow ones cannot keep others out: the next is told why, and admitted once one has ended."""
    async with serving(settings_of(fake, msgspec.structs.replace(STRICT, head_seconds=60))) as live:
        held = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(4)]
        status, body = error_of(await ask(live, b"", deadline))
        assert (status, body["retry_after"]) == (429, 5)
        assert live.server.limiter.open == 4
        held[0][1].write(b"nonsense\r\n\r\n")  # this one is ended by the server
        assert (await held[0][0].read()).startswith(b"HTTP/1.1 400")
        held[0][1].close()
        async with asyncio.timeout(deadline):
            while live.server.limiter.open == 4:  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0)
        answer = await ask(live, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", deadline)
        assert answer.startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()
    assert live.server.limiter.by_address == {}
    assert live.server.limiter.open == 0


async def test_all_together_have_only_so_many_connections(fake: FakeExecutor, deadline: float) -> None:
    api = Api(connections=2, trusted_proxies="127.0.0.0/8", connections_per_address=1)
    async with serving(settings_of(fake, api)) as live:
        # A trusted proxy's connections are those of many clients.
        held = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(2)]
        status, body = error_of(await ask(live, b"", deadline))
        assert (status, body["error"]) == (503, "Service unavailable")
        for _, writer in held:
            writer.close()


async def test_a_flood_of_connections_is_refused_and_leaves_nothing(fake: FakeExecutor) -> None:
    async with serving(settings_of(fake, STRICT)) as live:
        flood = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(400)]
        for connection in flood:
            connection.close()
        async with asyncio.timeout(20):
            answer = await live.client.get("/health", headers={"connection": "close"})
            while answer.status_code in (429, 503):
                answer = await live.client.get("/health", headers={"connection": "close"})
        assert answer.status_code == 200
    assert live.server.limiter.open == 0


async def test_every_answer_has_the_security_headers(live_fake: Live) -> None:
    for path in ("/", "/nothing", "/redoc", "/status/unknown"):
        headers = (await live_fake.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "strict-transport-security" not in headers
        assert "server" not in headers


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Api:
    return tls.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def secure(fake: FakeExecutor, certified: Api) -> AsyncIterator[Live]:
    """A server that speaks TLS."""
    api = msgspec.structs.replace(STRICT, cert=certified.cert, key=certified.key, connections_per_address=8)
    async with serving(settings_of(fake, api), tls.trusting(certified)) as server:
        yield server


async def test_tls_serves_everything(secure: Live, certified: Api) -> None:
    answer = await secure.client.post(
        "/run", content=programs.HELLO.code, headers={"content-type": "text/plain"}
    )
    assert answer.content == b"hello\n"
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    submitted = await secure.client.post(
        "/submit",
        files={"files": ("main.py", programs.SPLIT.code.encode())},
        data={"manifest": '{"entrypoint": "main.py"}'},
    )
    url = f"wss://127.0.0.1:{secure.port}/stream/{submitted.json()['job_id']}"
    async with websockets.connect(url, ssl=tls.trusting(certified)) as reader:
        assert "".join([str(message) async for message in reader]) == "né€😀"


def text_of(path: str) -> str:
    """What the file says."""
    return Path(path).read_text()


def spoil(path: str) -> None:
    """Have the file say something else."""
    Path(path).write_text("no certificate")


async def test_a_renewed_certificate_is_for_new_connections(
    fake: FakeExecutor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    api = tls.make(tmp_path)
    first = text_of(api.cert)
    async with serving(settings_of(fake, api), tls.trusting(api)) as live:

        async def shown_after_a_signal() -> str:
            signal.raise_signal(signal.SIGHUP)
            # The connection of before goes on; its answer comes after the signal was seen to.
            assert (await live.client.get("/health")).status_code == 200
            return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", live.port), timeout=30)

        assert await shown_after_a_signal() == first
        spoil(api.cert)
        assert await shown_after_a_signal() == first
        assert "the old certificate stays" in capfd.readouterr().err
        tls.make(tmp_path)
        assert await shown_after_a_signal() == text_of(api.cert) != first


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_new_tls_is_spoken(secure: Live, certified: Api, version: ssl.TLSVersion) -> None:
    context = tls.trusting(certified)
    context.minimum_version = context.maximum_version = version
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        assert (await client.get(f"https://127.0.0.1:{secure.port}/health")).status_code == 200


async def test_old_tls_is_not(secure: Live, certified: Api) -> None:
    context = tls.trusting(certified)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", secure.port, ssl=context)


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_a_handshake_that_never_ends(secure: Live, data: bytes, deadline: float) -> None:
    """It counts as a connection while it lasts; what is no TLS gets no answer in plain text."""
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port)
    writer.write(data)
    try:
        async with asyncio.timeout(deadline):
            said = await reader.read()
    except ConnectionResetError:
        said = b""
    writer.close()
    assert b"HTTP" not in said


async def test_slowness_inside_tls_is_not_waited_for(secure: Live, certified: Api, deadline: float) -> None:
    context = tls.trusting(certified)
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nHost:")
    async with asyncio.timeout(deadline):
        assert error_of(await reader.read())[0] == 408
    writer.close()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"HOST": "0.0.0.0"}, "--behind-proxy"),
        ({"CERT": "/nowhere/cert.pem"}, "needs both"),
        ({"CERT": "/nowhere/cert.pem", "KEY": "/nowhere/key.pem"}, "cannot read /nowhere/cert.pem"),
        ({"METRICS_NETWORKS": "everybody"}, "metrics_networks"),
        ({"HOST": "192.0.2.1", "BEHIND_PROXY": "true"}, "cannot listen"),
    ],
)
async def test_what_must_not_be_exposed_is_not_started(
    variables: dict[str, str], words: str, deadline: float
) -> None:
    environ = {f"SANDRUN_API__{key}": value for key, value in variables.items()}
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-P", "-m", "sandrun_api"],
        env={"PATH": "/usr/bin:/bin", "SANDRUN_API__PORT": "0", **environ},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(deadline):
        _, said = await process.communicate()
    assert process.returncode == 2
    assert words in said.decode()
    assert "Traceback" not in said.decode()
