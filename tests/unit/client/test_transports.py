"""The transports of the synchronous driver, before a server on a real socket: both do the same."""

import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandrun_api.uploads.fields import parse_options
from sandrun_api.uploads.multipart import Reader
from sandrun_client import ConnectionFailed, UnexpectedAnswer, connecting
from sandrun_client.drivers import SyncDriver
from sandrun_client.exchange import Emit, Flow, Open, Policy, Read, Request, Send, exchange
from sandrun_client.http_httpx import HttpxTransport
from sandrun_client.http_plain import PlainTransport
from sandrun_client.jobs import submit_code
from support import http_answers as answer
from unit.client.test_clients import Parts

Answer = Callable[["Handler"], None]
POLICY = Policy(retries=0)


class Handler(BaseHTTPRequestHandler):
    """Answers as the test says; `seen` holds the requests."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, dict(self.headers.items()), self.body))
        self.server.answer(self)

    def say(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is printed is another test's."""


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    seen: list[tuple[str, str, dict[str, str], bytes]]
    answer: Answer


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.seen = []
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


Connect = Callable[[str], SyncDriver]


@pytest.fixture(params=["plain", "httpx"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """A driver for an address."""
    opened: list[httpx.Client] = []

    def made(url: str) -> SyncDriver:
        if request.param == "plain":
            return SyncDriver(PlainTransport(url, 30, {"User-Agent": "test"}))
        opened.append(httpx.Client(**connecting.http_options(url, 30, True, {"User-Agent": "test"})))
        return SyncDriver(HttpxTransport(opened[-1]))

    yield made
    for client in opened:
        client.close()


def url_of(server: Server, path: str = "") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_a_request_and_its_answer(server: Server, connect: Connect) -> None:
    server.answer = lambda handler: handler.say(b'{"a": 1}', X_One="two")
    request = Request("POST", "/a%20b", {"wait": 1.5}, {"Idempotency-Key": "k"}, json={"code": "\u00e4"})
    reply = connect(url_of(server, "/base/")).run(exchange(POLICY, Send(request)))
    assert (reply.status, reply.document(), reply.headers["x-one"]) == (200, {"a": 1}, "two")
    method, path, headers, body = server.seen[0]
    assert (method, path, json.loads(body)) == ("POST", "/base/a%20b?wait=1.5", {"code": "\u00e4"})
    assert (headers["User-Agent"], headers["Idempotency-Key"]) == ("test", "k")
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("name", ["main.py", "a b.py", "\u00e4.py"])
def test_an_upload_is_what_the_server_reads(server: Server, connect: Connect, name: str) -> None:
    server.answer = lambda handler: handler.say(b'{"job_id": "j"}')
    steps: list[tuple[int, int | None]] = []
    code = b"\xff" * 200_000
    flow = submit_code(
        POLICY,
        code=code,
        files={},
        name=name,
        options={"timeout": 2.5},
        progress=lambda done, total: steps.append((done, total)),
        idempotency_key=None,
    )
    assert connect(url_of(server)).run(flow).job_id == "j"
    _, _, headers, body = server.seen[0]
    parts = Parts()
    reader = Reader(parse_options(headers["Content-Type"])[1]["boundary"].encode(), parts)
    reader.write(body)
    reader.finish()
    assert json.loads(parts.fields["manifest"]) == {"entrypoint": name, "timeout": 2.5}
    assert parts.files["files"] == (name, code)
    assert (steps[0], steps[-1]) == ((0, len(body)), (len(body), len(body)))


def test_an_answer_in_pieces(server: Server, connect: Connect) -> None:
    both = threading.Event()

    def chunked(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\none\r\n")
        assert both.wait(30)  # the first piece comes without the second
        handler.wfile.write(b"3\r\ntwo\r\n0\r\n\r\n")

    def flow() -> Flow[None]:
        yield Open(Request("GET", "/"))
        while data := (yield Read()):
            yield Emit(data)

    server.answer = chunked
    items = connect(url_of(server)).iterate(flow())
    assert next(items) == b"one"
    both.set()
    assert b"".join(items) == b"two"


def test_nobody_there(connect: Connect) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(ConnectionFailed, match=f"{url} cannot be reached: Connection refused") as caught:
            connect(url).run(exchange(POLICY, Send(Request("GET", "/"))))
    assert (caught.value.sent, caught.value.host) == (False, "127.0.0.1")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_a_connection_that_breaks(server: Server, connect: Connect, said: bytes) -> None:
    def cut(handler: Handler) -> None:
        handler.wfile.write(said)
        handler.close_connection = True

    server.answer = cut
    with pytest.raises(ConnectionFailed, match="broke") as caught:
        connect(url_of(server)).run(exchange(POLICY, Send(Request("GET", "/"))))
    assert caught.value.sent


def test_a_server_that_stays_silent(server: Server, connect: Connect) -> None:
    ended = threading.Event()
    server.answer = lambda handler: handler.close_connection or ended.wait(30) or None  # type: ignore[func-returns-value]
    request = Request("GET", "/", read_seconds=0.05)
    with pytest.raises(ConnectionFailed, match="timed out") as caught:
        connect(url_of(server)).run(exchange(POLICY, Send(request)))
    ended.set()
    assert caught.value.sent


def test_what_is_no_http(server: Server, connect: Connect) -> None:
    def other(handler: Handler) -> None:
        handler.wfile.write(b"SSH-2.0-x\r\n\r\n")
        handler.close_connection = True

    server.answer = other
    with pytest.raises((UnexpectedAnswer, ConnectionFailed), match=r"cannot be read|broke"):
        connect(url_of(server)).run(exchange(POLICY, Send(Request("GET", "/"))))


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://localhost:8443", True),
        ("http://[::1]", True),
        ("https://localhost", False),
        ("http://run.test", False),
        ("http://user:word@localhost", False),
    ],
)
def test_only_what_needs_neither_proxies_nor_tls_is_plain(url: str, plain: bool) -> None:
    assert connecting.is_plain(url) is plain


SLOW_TO_LOAD = (
    "anyio asyncio difflib email.mime httpcore httpx importlib.metadata msgspec nacl pathspec tarfile tempfile "
    "tomllib watchfiles sandrun_admin sandrun_client.aio sandrun_client.client sandrun_client.mcp "
    "sandrun_client.outputs"
).split()


def test_a_run_loads_nothing_that_it_does_not_need(server: Server, tmp_path: Path) -> None:
    """Each `sandrun FILE` would wait for it, several times as long as for its job."""

    def service(handler: Handler) -> None:
        if handler.command == "POST":
            handler.say(b'{"job_id": "j", "queue_position": null}')
        elif handler.command == "DELETE":
            handler.say(b"", 204)
        else:
            handler.say(answer.output_event(3, "hi\n") + answer.finished_event(6, answer.status("j")))

    server.answer = service
    (tmp_path / "a.py").write_text("print('hi')")
    code = (
        "import sys\nfrom sandrun_client.cli.main import main\n"
        "try:\n    main(['a.py'])\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "SANDRUN_URL": url_of(server)},
    )
    assert (done.returncode, done.stdout) == (0, "hi\n")
    loaded = set(done.stderr.split())
    assert "sandrun_client.http_plain" in loaded
    assert sorted(loaded & set(SLOW_TO_LOAD)) == []
