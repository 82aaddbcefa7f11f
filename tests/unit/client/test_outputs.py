"""Downloads: whole or not at all, resumed, checked, and never anywhere else."""

import base64
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandrun_client import ConnectionFailed, InvalidTarget, UnexpectedAnswer
from support import http_answers as answer

Connect = Callable[..., Any]
CONTENT = bytes(range(256)) * 10


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Files:
    """A server with a finished job's files; `cuts` says after how many bytes each answer breaks off."""

    def __init__(self, files: dict[str, bytes], cuts: tuple[int, ...] = (), ranges: bool = True) -> None:
        self.files = files
        self.cuts = [*cuts]
        self.ranges = ranges
        self.seen: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.path} {request.headers.get('range', '')}".strip())
        if request.method == "DELETE":
            return httpx.Response(204)
        if request.url.path == "/outputs/j":
            details = [
                {"path": path, "size_bytes": len(data), "sha256": sha256(data).hex()}
                for path, data in self.files.items()
            ]
            return httpx.Response(200, json={"details": details})
        return self._file(request)

    def _file(self, request: httpx.Request) -> httpx.Response:
        data = self.files[request.url.path.removeprefix("/download/j/")]
        etag = f'"{sha256(data).hex()}"'
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        start = int(match[1]) if match and self.ranges and request.headers["if-range"] == etag else 0
        headers = {
            "etag": etag,
            "content-length": str(len(data) - start),
            "repr-digest": f"sha-256=:{base64.b64encode(sha256(data)).decode()}:",
        }
        status = 206 if start else 200
        if self.cuts:
            cut = answer.Cut(data[start : start + self.cuts.pop(0)])
            return httpx.Response(status, stream=cut, headers=headers)
        return httpx.Response(status, content=data[start:], headers=headers)


def test_everything_then_the_job_is_deleted(connect: Connect, tmp_path: Path) -> None:
    server = Files({"a.txt": b"a", "deep/er/b": CONTENT, "empty": b""})
    steps: list[tuple[int, int | None]] = []
    saved = connect(server).download_all(
        "j", tmp_path / "new" / "folder", progress=lambda done, total: steps.append((done, total))
    )
    top = tmp_path / "new" / "folder"
    assert list(saved) == [top / "a.txt", top / "deep/er/b", top / "empty"]
    assert [path.read_bytes() for path in saved] == list(server.files.values())
    assert server.seen[-1] == "DELETE /jobs/j"
    assert steps[-1] == (1 + len(CONTENT), 1 + len(CONTENT))


def test_a_job_may_be_kept(connect: Connect, tmp_path: Path) -> None:
    server = Files({"a": b"a"})
    connect(server).download_all("j", tmp_path, keep=True)
    assert not any(line.startswith("DELETE") for line in server.seen)


def test_a_download_that_breaks_goes_on_where_it_was(
    connect: Connect, tmp_path: Path, naps: list[float]
) -> None:
    server = Files({"a": CONTENT}, cuts=(100, 50))
    assert connect(server).download_file("j", "a", tmp_path) == tmp_path / "a"
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.seen == [
        "GET /download/j/a",
        "GET /download/j/a bytes=100-",
        "GET /download/j/a bytes=150-",
    ]


def test_a_server_without_ranges_starts_again(connect: Connect, naps: list[float]) -> None:
    assert connect(Files({"a": CONTENT}, cuts=(100,), ranges=False)).read_file("j", "a") == CONTENT


def test_a_download_that_always_breaks_leaves_nothing(
    connect: Connect, tmp_path: Path, naps: list[float]
) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(ConnectionFailed):
        connect(Files({"a": CONTENT}, cuts=(0,) * 9), retries=2).download_file("j", "a", tmp_path / "a")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "before"}


def test_a_file_that_was_changed_on_its_way_is_not_saved(connect: Connect, tmp_path: Path) -> None:
    digest = base64.b64encode(sha256(b"other")).decode()

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"content", headers={"repr-digest": f"sha-256=:{digest}:"})

    with pytest.raises(UnexpectedAnswer, match="SHA-256"):
        connect(handler).download_file("j", "a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", "", "a//b", "./a", "a/", "a\0b"])
def test_names_that_lead_elsewhere_are_refused_before_anything_is_written(
    connect: Connect, tmp_path: Path, name: str
) -> None:
    server = Files({"good": b"", name: b"bad"})
    with pytest.raises(InvalidTarget):
        connect(server).download_all("j", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert server.seen == ["GET /outputs/j"]


def test_a_link_does_not_lead_out(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidTarget, match="link"):
        connect(Files({"link/a": b"x"})).download_all("j", tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_in_the_place_of_a_file_is_replaced(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a").symlink_to("precious")
    connect(Files({"a": b"new"})).download_file("j", "a", tmp_path / "a")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_saved_file_has_the_usual_mode(connect: Connect, tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        connect(Files({"a": b""})).download_file("j", "a", tmp_path)
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_cannot_be_made(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidTarget, match="cannot be made"):
        connect(Files({"a": b""})).download_all("j", tmp_path / "file" / "x")
