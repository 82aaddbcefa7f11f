"""Both clients against answers of a server."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from sandrun_api.uploads.fields import parse_options
from sandrun_api.uploads.multipart import Reader
from sandrun_client import (
    ConnectionFailed,
    InvalidUpload,
    RateLimited,
    UnexpectedAnswer,
    UnknownJob,
    WaitTimeout,
    jobs,
)
from sandrun_client.drivers import SyncDriver
from sandrun_client.exchange import Policy
from sandrun_client.http_httpx import HttpxTransport
from sandrun_shared import languages, orders
from support import http_answers as answer

Connect = Callable[..., Any]


class Parts:
    """The fields and the files of a multipart body."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.files: dict[str, tuple[str, bytes]] = {}

    def begin(self, headers: Mapping[str, bytes]) -> None:
        _, self._options = parse_options(headers["content-disposition"].decode())
        self._data = b""

    def data(self, piece: memoryview) -> None:
        self._data += bytes(piece)

    def end(self) -> None:
        name, file_name = self._options["name"], self._options.get("filename")
        if file_name is None:
            self.fields[name] = self._data
        else:
            self.files[name] = (file_name, self._data)


def form_of(request: httpx.Request) -> tuple[dict[str, bytes], dict[str, tuple[str, bytes]]]:
    """The fields and the files of a request, as the server's reader sees them."""
    _, options = parse_options(request.headers["content-type"])
    parts = Parts()
    reader = Reader(options["boundary"].encode(), parts)
    reader.write(request.read())
    reader.finish()
    return parts.fields, parts.files


def test_run(connect: Connect) -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path, json.loads(request.content)))
        image = {"path": "a.png", "mime_type": "image/png", "data_base64": "iVBO"}
        return httpx.Response(200, json=answer.result(exit_code=3, verdict="nonzero_exit", images=[image]))

    result = connect(handler).run("x", interpreter="node", files={"a": "b"}, timeout=2.5, args=["1"])
    body = {"code": "x", "interpreter": "node", "timeout": 2.5, "args": ["1"], "files": {"a": "b"}}
    assert seen == [("POST", "/run", body)]
    assert (result.stdout, result.stderr, result.exit_code, result.verdict) == ("hi\n", "", 3, "nonzero_exit")
    assert [(image.path, image.data) for image in result.images] == [("a.png", b"\x89PN")]


def test_output_that_is_no_text_comes_as_bytes(connect: Connect) -> None:
    raw = base64.b64encode(b"\xff\n").decode()
    body = answer.result(stdout="\ufffd\n", stdout_base64=raw, stderr_base64="")
    result = connect(lambda _: httpx.Response(200, json=body)).run("x")
    assert result.logs.stdout_bytes == b"\xff\n"
    assert result.stdout == "\ufffd\n"


def test_a_submission_is_what_the_server_reads(connect: Connect) -> None:
    seen: list[Any] = []
    steps: list[tuple[int, int]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(form_of(request))
        return httpx.Response(200, json={"job_id": "j", "queue_position": 2})

    code = "print('ä')" * 20_000
    job = connect(handler).submit_code(
        code, interpreter="python3", memory_mb=64, progress=lambda done, total: steps.append((done, total))
    )
    fields, files = seen[0]
    assert json.loads(fields["manifest"]) == {
        "entrypoint": "main.py",
        "interpreter": "python3",
        "memory_mb": 64,
    }
    assert files["files"] == ("main.py", code.encode())
    assert (job.job_id, job.queue_position) == ("j", 2)
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1] > len(code)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_a_submission_that_is_refused_for_now_is_sent_whole_again(
    connect: Connect, naps: list[float]
) -> None:
    bodies: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(form_of(request))
        if len(bodies) == 1:
            return answer.refusal(429, Retry_After="3")
        return httpx.Response(200, json={"job_id": "j", "queue_position": None})

    connect(handler).submit_code("print(1)", files={"data/x": b"\0"})
    assert bodies[0] == bodies[1]
    assert naps == [3]


def test_wait_asks_until_the_job_is_finished(connect: Connect, naps: list[float]) -> None:
    states = ["queued", "running", "failed"]

    def handler(request: httpx.Request) -> httpx.Response:
        assert 0 < float(request.url.params["wait"]) <= 60
        return httpx.Response(200, json=answer.status(state=states.pop(0), exit_code=1))

    status = connect(handler).wait("job")
    assert (status.status, status.finished, status.ok) == ("failed", True, False)
    assert len(naps) == 2  # a server that does not wait is not asked in a loop


def test_wait_ends() -> None:
    now = [0.0]

    def handler(request: httpx.Request) -> httpx.Response:
        now[0] += float(request.url.params["wait"])
        return httpx.Response(200, json=answer.status(state="running"))

    http = httpx.Client(base_url="http://server.test", transport=httpx.MockTransport(handler))
    driver = SyncDriver(HttpxTransport(http))
    with pytest.raises(WaitTimeout) as caught:
        driver.run(jobs.wait(Policy(clock=lambda: now[0]), "job", 70))
    assert caught.value.job_id == "job"
    assert now[0] == 70


def test_run_and_wait_collects_everything(connect: Connect) -> None:
    picture = b"\x89PNG"
    digest = hashlib.sha256(picture).hexdigest()
    detail = {"path": "a b.png", "size_bytes": 4, "sha256": digest, "mime_type": "image/png"}
    listed = {"a b.png": {"path": "a b.png", "size_bytes": 4, "sha256_hash": digest, "type": "file"}}

    def handler(request: httpx.Request) -> httpx.Response:
        match request.url.raw_path.partition(b"?")[0]:
            case b"/submit":
                return httpx.Response(200, json={"job_id": "j", "queue_position": None})
            case b"/status/j":
                return httpx.Response(200, json=answer.status("j", output_files=listed))
            case b"/logs/j":
                return httpx.Response(200, json=answer.logs("out", "err"))
            case b"/outputs/j":
                return httpx.Response(200, json={"files": [], "details": [detail], "truncated": False})
            case b"/download/j/a%20b.png":
                return httpx.Response(200, content=picture)
        return httpx.Response(500)

    result = connect(handler).run_and_wait(code="1")
    assert (result.job_id, result.status, result.logs.stderr) == ("j", "completed", "err")
    assert result.output_files == result.files
    assert [(file.path, file.mime_type) for file in result.files] == [("a b.png", "image/png")]
    assert result.images[0].data == picture


def test_what_is_interrupted_is_cancelled(connect: Connect) -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}")
        if request.url.path == "/submit":
            return httpx.Response(200, json={"job_id": "j", "queue_position": None})
        if request.method == "DELETE":
            return httpx.Response(204)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        connect(handler).run_and_wait(code="1")
    assert seen == ["POST /submit", "GET /status/j", "DELETE /jobs/j"]


@pytest.mark.parametrize("arguments", [{}, {"code": "1", "directory": "."}])
def test_run_and_wait_takes_one_of_both(connect: Connect, arguments: dict[str, str]) -> None:
    with pytest.raises(Exception, match=r"either .code. or .directory."):
        connect(lambda _: httpx.Response(500)).run_and_wait(**arguments)


def test_errors_of_the_network(connect: Connect, naps: list[float]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ConnectionFailed, match="cannot be reached"):
        connect(handler, retries=2).get_stats()
    assert len(naps) == 2


def test_errors_of_the_server(connect: Connect, naps: list[float]) -> None:
    with pytest.raises(UnknownJob, match="gone"):
        connect(lambda _: answer.refusal(404, "gone")).cancel("j")
    with pytest.raises(RateLimited):
        connect(lambda _: answer.refusal(429, Retry_After="9999")).run("1")
    assert naps == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"details":[{}]}', b'{"details":3}'])
def test_a_server_of_another_kind(connect: Connect, body: bytes) -> None:
    client = connect(lambda _: httpx.Response(200, content=body))
    for call in (client.get_status, client.get_logs, client.list_outputs, client.wait):
        with pytest.raises(UnexpectedAnswer):
            call("j")
    for name in ("run", "submit_code"):
        with pytest.raises(UnexpectedAnswer):
            getattr(client, name)("1")
    with pytest.raises(UnexpectedAnswer):
        client.test_connection()


def test_job_ids_are_no_paths(connect: Connect) -> None:
    seen: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(204)

    connect(handler).cancel("../stats?x")
    assert seen == [b"/jobs/..%2Fstats%3Fx"]


def test_connection(connect: Connect) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            return httpx.Response(200, json={"status": "healthy", "worker_id": "w"})
        body = {"service": "sandrun", "version": "1", "interpreters": ["node"], "limits": {}}
        return httpx.Response(200, json=body)

    found = connect(handler).test_connection()
    assert (found.url, found.version, found.interpreters) == ("http://server.test", "1", ("node",))
    assert not found.verified


def test_code_that_has_the_name_of_a_file(connect: Connect) -> None:
    client = connect(lambda _: httpx.Response(500))
    with pytest.raises(InvalidUpload, match=r"main\.py"):
        client.submit_code("x", files={"main.py": "y"})


def test_code_whose_name_is_none(connect: Connect) -> None:
    client = connect(lambda _: httpx.Response(500))
    for name in ("a/b", "a\0b"):
        with pytest.raises(InvalidUpload, match="not the name of a"):
            client.submit_code("x", name=name)


def test_a_byte_order_mark_before_the_line_that_tells_the_language(connect: Connect) -> None:
    """As far as the language takes it for a part of the program; the server reads both kinds of line."""
    sent: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(form_of(request)[1]["files"][1])
        return httpx.Response(200, json={"job_id": "j", "status": "queued", "queue_position": 0})

    for line in ("#!/bin/sh\n", "#!/usr/bin/python3\n"):
        connect(handler).submit_code("\ufeff" + line, name="tool")
    assert sent == [b"#!/bin/sh\n", b"\xef\xbb\xbf#!/usr/bin/python3\n"]


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"interpreter": "Bash"}, b"echo"),
        ({"interpreter": "shell"}, b"echo"),
        ({"name": "a.py"}, b"\xef\xbb\xbfecho"),
        ({"name": "a.sh"}, b"echo"),
        ({"name": "tool"}, b"\xef\xbb\xbfecho"),
        ({"interpreter": "python3"}, b"\xef\xbb\xbfecho"),
    ],
)
def test_a_byte_order_mark_is_no_part_of_a_script(
    connect: Connect, options: dict[str, str], sent: bytes
) -> None:
    """Where the language would take it for one; the upload that was sent is what receipts are checked with."""
    seen: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(form_of(request)[1]["files"][1])
        return httpx.Response(200, json={"job_id": "j", "status": "queued", "queue_position": 0})

    submitted = connect(handler).submit_code("\ufeffecho", **options)
    assert seen == [sent]
    name = options.get("name") or languages.file_name_of(languages.canonical(options["interpreter"]))
    assert submitted.upload_sha256 == orders.bundle_sha256([(name, sent)])
