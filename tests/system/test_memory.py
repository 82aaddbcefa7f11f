"""The api's memory is bounded, whatever clients send endlessly or do not read."""

import base64
import json
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from support import machine
from support.executor import WAIT_SECONDS
from support.memory import held_bytes
from support.service import Service

MIB = 1 << 20
SLACK = 48 * MIB  # of an allocator, and of one document that is being decoded
SHARE = 256 * MIB  # [quota] unfinished_mb
READER = 384 << 10  # what one reader may make the api hold
READERS = 24
JSON = "application/json"


@pytest.fixture(scope="module")
def service(_root: None) -> Iterator[Service]:
    """Both daemons, with all adapters."""
    environment = {
        "SANDRUN_API__ADAPTERS": "piston,judge0",
        "SANDRUN_API__SEND_SECONDS": "600",
        "SANDRUN_API__BODY_SECONDS": "600",
    }
    with Service(environment=environment) as running:
        running.run("print(1)")
        yield running


def connected(service: Service, address: str = "127.0.0.1") -> socket.socket:
    """A connection from an address of loopback."""
    sock = socket.socket()
    sock.settimeout(WAIT_SECONDS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind((address, 0))
    sock.connect(("127.0.0.1", service.port))
    return sock


def counted(service: Service) -> int:
    """Bytes that the api's budget counts."""
    text = service.client.get("/metrics").text
    found = re.search(r"^sandrun_held_bytes (\S+)$", text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def answer_of(sock: socket.socket) -> tuple[int, dict[str, str], str]:
    """The status, header fields and text of an error."""
    with sock.makefile("rb") as reader:
        status = int(reader.readline().split()[1])
        fields = dict(line.decode().strip().lower().split(": ", 1) for line in iter(reader.readline, b"\r\n"))
        return status, fields, reader.read(int(fields["content-length"])).decode()


FORM = b'--x\r\ncontent-disposition: form-data; name="files"; filename="main.py"\r\n\r\n'
BODIES = [
    ("/run", "text/plain", b""),
    ("/run", JSON, b'{"code": "'),
    ("/submit", "multipart/form-data; boundary=x", FORM),
    ("/submissions", JSON, b'{"language_id": 71, "source_code": "'),
    ("/submissions/batch", JSON, b'{"submissions": [{"language_id": 71, "source_code": "'),
    ("/api/v2/execute", JSON, b'{"language": "python", "version": "*", "files": [{"content": "'),
]


@pytest.mark.parametrize(
    ("path", "kind", "begin"), BODIES, ids=[f"{path} {kind}" for path, kind, _ in BODIES]
)
@pytest.mark.parametrize("framing", ["content-length: 16000000", "transfer-encoding: chunked"])
def test_bodies_that_do_not_end(service: Service, path: str, kind: str, begin: bytes, framing: str) -> None:
    pid = service.daemon("sandrun_api")
    before = held_bytes(pid)
    body = begin + b"#" * (15_000_000 - len(begin))
    if "chunked" in framing:
        body = b"%x\r\n" % 16_000_000 + body
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n".encode()
    with ExitStack() as stack:
        held = [stack.enter_context(connected(service)) for _ in range(24)]  # 360 MB
        for sock in held:
            sock.sendall(head + body)
        # All was taken by the api or dropped: what it holds is the share, and is counted.
        most = SHARE // 15_000_000
        assert machine.eventually(lambda: len(select.select(held, [], [], 0)[0]) >= len(held) - most)
        assert counted(service) <= SHARE
        assert held_bytes(pid) - before <= SHARE + SLACK
        refused = select.select(held, [], [], 0)[0]
        for sock in refused:
            status, fields, document = answer_of(sock)
            assert (status, int(fields["retry-after"]) > 0) == (429, True)
            assert "256 MiB" in document
        # Another address is served.
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as other:
            ran = other.post(f"http://127.0.0.1:{service.port}/run", json={"code": "print(1)"}, timeout=60)
        assert (ran.status_code, ran.json()["stdout"]) == (200, "1\n")
    assert machine.eventually(lambda: counted(service) == 0)
    assert machine.eventually(lambda: held_bytes(pid) - before <= SLACK)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b'{"code": "", "args": [' + b'"ab",' * 3_000_000 + b'"ab"]}', id="strings"),
        pytest.param(b'{"files": [' + b"[]," * 5_000_000 + b"[]]}", id="lists"),
        pytest.param(b'{"code": "", "files": {' + b'"ab":"cd",' * 1_500_000 + b'"ab":"cd"}}', id="objects"),
        pytest.param(b'{"code": "' + b"\\u0001" * 2_600_000 + '\U0001f600"'.encode() + b"}", id="wide"),
    ],
)
@pytest.mark.parametrize("path", ["/run", "/submissions", "/submissions/batch", "/api/v2/execute"])
def test_a_document_that_takes_much_more_when_it_is_decoded(
    service: Service, path: str, document: bytes
) -> None:
    """The process never had more than some copies of one: its peak (proc(5), VmHWM) is asked for."""
    pid = service.daemon("sandrun_api")
    before = held_bytes(pid)
    with open(f"/proc/{pid}/clear_refs", "w") as peak:
        peak.write("5")  # forget the peak of before
    for _ in range(3):
        answer = service.client.post(path, content=document, headers={"content-type": JSON})
        assert answer.status_code in (200, 400, 413, 422), answer.text
    with open(f"/proc/{pid}/status") as status:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read(), re.MULTILINE)
    assert found is not None
    assert (int(found[1]) << 10) - before <= 12 * len(document) + SLACK
    assert machine.eventually(lambda: held_bytes(pid) - before <= SLACK)
    assert machine.eventually(lambda: counted(service) == 0)


# Ten MiB that JSON needs six times as much for, an image, and a thousand files with long names.
PRINTS = "import os\nfor _ in range(640):\n    os.write(1, b'\\x01' * 16384)\n"
LEAVES = (
    PRINTS
    + "open('i.png', 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom(4_000_000))\n"
    + "open('large', 'wb').write(os.urandom(24 << 20))\n"
    + "name = '\\x01' * 250\n"
    + "os.makedirs('/'.join([name] * 3))\nos.chdir('/'.join([name] * 3))\n"
    + "for number in range(990):\n    open(f'{number:03}' + name[:200], 'w').close()\n"
)


@pytest.fixture(scope="module")
def job_id(service: Service) -> str:
    """A job that printed and left as much as it may."""
    job_id = service.submit(LEAVES)
    status = service.until(job_id, lambda status: status["status"] in ("completed", "failed"))
    assert (status["verdict"], len(status["output_files"])) == ("ok", 992)  # type: ignore[arg-type]
    return job_id


@pytest.fixture(scope="module")
def token(service: Service) -> str:
    """A submission to Judge0's interface that printed as much, and was sent as much."""
    encoded = base64.b64encode(PRINTS.encode()).decode()
    body = {"language_id": 71, "source_code": encoded, "expected_output": "AQEB" * (3 * MIB // 4)}
    answer = service.client.post("/submissions?wait=true&base64_encoded=true&fields=token", json=body)
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return str(answer.json()["token"])


def get(path: str, *fields: str) -> bytes:
    """A request, as it is sent."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: localhost", *fields, "", ""]).encode()


def post(path: str, body: object, *fields: str) -> bytes:
    """A request with JSON, or with text."""
    kind = "text/plain" if isinstance(body, str) else JSON
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n"
    )
    return head.encode() + "".join(f"{field}\r\n" for field in fields).encode() + b"\r\n" + data


UPGRADE = (
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
)
EXECUTE = {"language": "python", "version": "*", "files": [{"content": PRINTS}]}
SUBMISSION = {"language_id": 71, "source_code": PRINTS}
ANSWERS: dict[str, Callable[[str, str], bytes]] = {
    "logs as JSON": lambda job, _: get(f"/logs/{job}"),
    "logs as text": lambda job, _: get(f"/logs/{job}", "accept: text/plain"),
    "events": lambda job, _: get(f"/logs/{job}/events"),
    "the last event": lambda job, _: get(f"/logs/{job}/events", f"last-event-id: {10 * MIB}"),
    "WebSocket": lambda job, _: get(f"/stream/{job}", *UPGRADE),
    "WebSocket with JSON": lambda job, _: get(f"/stream/{job}?format=json", *UPGRADE),
    "status": lambda job, _: get(f"/status/{job}"),
    "outputs": lambda job, _: get(f"/outputs/{job}"),
    "archive": lambda job, _: get(f"/download/{job}"),
    "file": lambda job, _: get(f"/download/{job}/large"),
    "range": lambda job, _: get(f"/download/{job}/large", "range: bytes=100-"),
    "Judge0": lambda _, token: get(f"/submissions/{token}?fields=*"),
    "Judge0 in Base64": lambda _, token: get(f"/submissions/{token}?fields=*&base64_encoded=true"),
    "Judge0, a batch": lambda _, token: get(f"/submissions/batch?tokens={token},{token}&base64_encoded=true"),
    "Judge0 with wait": lambda *_: post("/submissions?wait=true", SUBMISSION),
    "Piston": lambda *_: post("/api/v2/execute", EXECUTE),
    "run as text": lambda *_: post("/run", PRINTS),
    "run as JSON": lambda *_: post("/run", {"code": PRINTS}),
    "run as events": lambda *_: post("/run", PRINTS, "accept: text/event-stream"),
    "run with images": lambda *_: post("/run", {"code": LEAVES}),
    "run with images as events": lambda *_: post("/run", {"code": LEAVES}, "accept: text/event-stream"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_readers_that_do_not_read(service: Service, name: str, job_id: str, token: str) -> None:
    pid = service.daemon("sandrun_api")
    request = ANSWERS[name](job_id, token)
    readers = READERS if request.startswith(b"GET") else READERS // 4
    counted_before = counted(service)

    def uncounted() -> int:
        """What the api holds and has not counted; an output that grows has an eighth more."""
        return held_bytes(pid) - 9 * counted(service) // 8

    before = uncounted()
    with ExitStack() as stack:
        waiting = [stack.enter_context(connected(service)) for _ in range(readers)]
        for sock in waiting:
            sock.sendall(request)
        left = set(waiting)
        deadline = time.monotonic() + 4 * WAIT_SECONDS
        while left:
            left -= set(select.select([*left], [], [], max(0.0, deadline - time.monotonic()))[0])
            assert time.monotonic() < deadline, f"{len(left)} were not answered"
        seen: list[int] = []
        for _ in range(20):  # while others are served, as far as these can be
            assert service.client.get("/health").status_code == httpx.codes.OK
            seen.append(uncounted())
        assert max(seen) - before <= readers * READER + SLACK, f"{(max(seen) - before) / MIB:.1f} MiB"
        # Peeked at, not taken: each is being answered, and not with an error.
        begun = [sock.recv(4096, socket.MSG_PEEK) for sock in waiting]
        assert all(re.match(rb"HTTP/1.1 (2\d\d|101) ", begin) for begin in begun)
    assert machine.eventually(lambda: uncounted() - before <= SLACK)
    if request.startswith(b"POST"):  # those with outputs are kept, and Judge0's
        for name_of_job in re.findall(rb'(?:job-id: |"job_id":")(\w{32})', b"".join(begun)):
            service.client.delete(f"/jobs/{name_of_job.decode()}")
    assert machine.eventually(lambda: counted(service) == counted_before)
