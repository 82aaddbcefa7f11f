"""A client that sends all before it reads sees the answer, whichever it is and however it sends."""

import asyncio
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from sandrun_api.edge.clients import key_of
from sandrun_shared.settings import Api, Executor, JobLimits, Quota, Settings
from support import programs, tls
from support.clocks import FakeClock
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
MIB = 1 << 20
BODY = b"#" * (40 * MIB)  # more than every buffer on the way, and every limit
JSON = "application/json"
FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\ncontent-disposition: form-data; name="files"; filename="main.py"\r\n\r\n'

# Address, type, the body's beginning, the status: with room for little, an upload of 100 KiB and 1 job an hour.
REFUSED: list[tuple[str, str, bytes, int]] = [
    ("/run", "text/plain", b"", 413),
    ("/run", JSON, b'{"code": "', 413),
    ("/run", "image/png", b"", 415),
    ("/submit", FORM, PART, 413),
    ("/submit", "text/plain", b"", 415),
    ("/submissions", JSON, b"{", 413),
    ("/submissions/batch", "text/plain", b"", 415),
    ("/api/v2/execute", JSON, b"{", 413),
    ("/api/v2/execute", "text/plain", b"", 415),
    ("/nothing", "text/plain", b"", 404),
    ("/health", "text/plain", b"", 405),
]
Sender = Callable[[Live, str, str, bytes], tuple[int, bytes]]


@asynccontextmanager
async def strict(fake: FakeExecutor, api: Api | None = None, **tables: object) -> AsyncIterator[Live]:
    """A server that refuses."""
    api = api or Api(upload_bytes=100 << 10)
    settings = {
        "api": msgspec.structs.replace(api, adapters=("piston", "judge0")),
        "quota": Quota(0, 0, 0, 0),
        **tables,
    }
    trusted = tls.trusting(api) if api.cert else True
    whole = Settings(executor=Executor(socket=str(fake.path)), **settings)  # type: ignore[arg-type]
    async with serving(whole, trusted, now=FakeClock()) as live:
        yield live


def by_urllib(live: Live, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
    """As urllib sends: all at once, `Connection: close`."""
    url = f"http://127.0.0.1:{live.port}{path}"
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def by_http_client(
    live: Live,
    path: str,
    kind: str,
    body: bytes,
    *,
    chunked: bool = False,
    expects: bool = False,
    context: ssl.SSLContext | None = None,
) -> tuple[int, bytes]:
    """As requests and many others send: all at once, on a connection that stays open."""
    address = ("127.0.0.1", live.port)
    connection = (
        http.client.HTTPConnection(*address, timeout=30)
        if context is None
        else http.client.HTTPSConnection(*address, timeout=30, context=context)
    )
    fields = {"Content-Type": kind, **({"Expect": "100-continue"} if expects else {})}
    pieces: Iterator[bytes] = (body[at : at + MIB] for at in range(0, len(body), MIB))
    try:
        if chunked:
            connection.request("POST", path, pieces, fields, encode_chunked=True)
        else:
            connection.request("POST", path, body, fields)  # which waits for no 100 (Continue)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


SENDERS: dict[str, Sender] = {
    "urllib": by_urllib,
    "http.client": by_http_client,
    "chunked": lambda *given: by_http_client(*given, chunked=True),
    "not waiting for 100": lambda *given: by_http_client(*given, expects=True),
}


@pytest.mark.parametrize("sender", SENDERS)
async def test_what_is_refused_for_itself(fake: FakeExecutor, sender: str) -> None:
    async with strict(fake) as live:
        for path, kind, begin, status in REFUSED:
            answer = await asyncio.to_thread(SENDERS[sender], live, path, kind, begin + BODY)
            assert answer[0] == status, (path, kind, answer)
            assert json.loads(answer[1])
        assert live.server.config.app.state.service.budget.used_bytes == 0


@pytest.mark.parametrize("sender", SENDERS)
async def test_what_is_refused_for_the_client(fake: FakeExecutor, sender: str) -> None:
    async with strict(fake, quota=Quota(jobs_per_hour=1)) as live:
        assert (await live.client.post("/run", json={"code": programs.HELLO.code})).status_code == 200
        for path, kind, begin, status in REFUSED:
            if status == 413:
                answer = await asyncio.to_thread(SENDERS[sender], live, path, kind, begin + BODY)
                assert answer[0] == 429, (path, kind, answer)


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize(("budget_mb", "share_mb", "status"), [(16, 100, 503), (2048, 8, 429)])
async def test_what_is_refused_for_memory(
    fake: FakeExecutor, sender: str, budget_mb: int, share_mb: int, status: int
) -> None:
    """In the midst of a body, before it has come to the limit of its size."""
    limits = JobLimits(memory_budget_mb=budget_mb)
    async with strict(fake, api=Api(upload_bytes=100 * MIB), limits=limits) as live:
        budget = live.server.config.app.state.service.budget
        budget.share_bytes = share_mb * MIB
        budget.charge(4 * MIB)  # of somebody else
        for path, kind, begin, size in (
            ("/submit", FORM, PART, len(BODY)),
            ("/run", "text/plain", b"", 16 * MIB),
            ("/run", JSON, b'{"code": "', 15 * MIB),
            ("/submissions", JSON, b"{", 15 * MIB),
            ("/api/v2/execute", JSON, b"{", 15 * MIB),
        ):
            code, document = await asyncio.to_thread(SENDERS[sender], live, path, kind, begin + BODY[:size])
            assert code == status, (path, document)
        assert budget.used_bytes == 4 * MIB
        assert not budget.unfinished(key_of("127.0.0.1"))
        budget.charge(-4 * MIB)


@pytest.mark.parametrize("chunked", [False, True])
async def test_over_tls(fake: FakeExecutor, tmp_path_factory: pytest.TempPathFactory, chunked: bool) -> None:
    api = msgspec.structs.replace(tls.make(tmp_path_factory.mktemp("tls")), upload_bytes=100 << 10)
    async with strict(fake, api) as live:
        for path, kind, begin, status in REFUSED:

            def send(path: str = path, kind: str = kind, data: bytes = begin + BODY) -> tuple[int, bytes]:
                return by_http_client(live, path, kind, data, chunked=chunked, context=tls.trusting(api))

            assert (await asyncio.to_thread(send))[0] == status, (path, kind)


async def test_a_connection_is_used_again_after_a_refusal(fake: FakeExecutor) -> None:
    async with strict(fake) as live:

        def both() -> list[int]:
            connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=30)
            codes = []
            for path, kind, body in (("/run", "text/plain", BODY), ("/run", "text/plain", b"pass")):
                connection.request("POST", path, body, {"Content-Type": kind})
                answer = connection.getresponse()
                codes.append(answer.status)
                answer.read()
            connection.close()
            return codes

        assert await asyncio.to_thread(both) == [413, 200]


async def test_one_connection_too_many(fake: FakeExecutor) -> None:
    """It is refused before anything is read."""
    async with strict(fake) as live:
        live.server.limiter.limits = Api(connections_per_address=1)
        held = socket.create_connection(("127.0.0.1", live.port))
        try:
            async with asyncio.timeout(20):
                while not live.server.limiter.open:  # noqa: ASYNC110 (it tells nobody)
                    await asyncio.sleep(0)
            code, document = await asyncio.to_thread(by_urllib, live, "/run", "text/plain", BODY)
            assert (code, json.loads(document)["retry_after"]) == (429, 5)
        finally:
            held.close()


async def test_what_is_no_request(fake: FakeExecutor) -> None:
    async with strict(fake) as live:

        def send() -> bytes:
            with socket.create_connection(("127.0.0.1", live.port), timeout=30) as sock:
                sock.sendall(b"nonsense\r\n\r\n" + BODY)
                return sock.recv(12)

        assert await asyncio.to_thread(send) == b"HTTP/1.1 400"


async def test_a_sender_without_an_end_is_cut_off(fake: FakeExecutor) -> None:
    async with strict(fake) as live:

        def send() -> float:
            with socket.create_connection(("127.0.0.1", live.port), timeout=30) as sock:
                sock.sendall(b"POST /run HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n")
                sent = 0
                while sent < len(BODY) * 10:
                    try:
                        sent += sock.send(BODY)
                    except ConnectionError:
                        break
            return sent / MIB

        assert 64 <= await asyncio.to_thread(send) <= 128
