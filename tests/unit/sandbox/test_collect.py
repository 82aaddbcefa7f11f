"""Valid and hostile files of a job, collected from a directory."""

import hashlib
import os
import re
import resource
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandrun_executor.receipts import measures
from sandrun_sandbox import beneath, unpack
from sandrun_sandbox import collect as module
from sandrun_sandbox.layout import REASONS
from sandrun_sandbox.orders import read_all
from sandrun_shared import orders, outputs
from sandrun_shared.jobs import LeftOutReason
from sandrun_shared.outputs import OutputEntry


@dataclass
class Collection:
    """The result of collecting; left_out has the reasons, entries describe each file."""

    files: dict[str, bytes]
    left_out: dict[str, int]
    entries: list[OutputEntry]


def collected(
    work: Path,
    *patterns: str,
    snapshot: bytes = b"",
    max_files: int = 1000,
    max_bytes: int = 1 << 30,
    seconds: float = 60.0,
    **more: int,
) -> Collection:
    """Collect, measure with the executor's code and decode with the api's."""
    work_fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    *into, index_fd = [os.memfd_create(name) for name in ("data", "names", "numbers", "index")]
    before = len(os.listdir("/proc/self/fd"))
    try:
        left_out = module.collect(
            work_fd,
            list(patterns),
            snapshot,
            module.Into(*into),
            max_files=max_files,
            max_bytes=max_bytes,
            seconds=seconds,
            **more,
        )
        assert len(os.listdir("/proc/self/fd")) == before
        measures.measure([*into, index_fd], threading.Event(), most_files=max_files, most_bytes=max_bytes)
        data, index = read_all(into[0]), read_all(index_fd)
    finally:
        for fd in (work_fd, *into, index_fd):
            os.close(fd)
    assert tuple(left_out) == REASONS
    entries = outputs.decode_index(index, len(data))
    files = {}
    for entry in entries:
        content = data[entry.offset : entry.offset + entry.size_bytes]
        assert hashlib.sha256(content).hexdigest() == entry.sha256_hex
        files[entry.path] = content
    return Collection(files, {reason: count for reason, count in left_out.items() if count}, entries)


def collect(work: Path, *patterns: str, **options: Any) -> tuple[dict[str, bytes], bool]:
    """Return the files, and whether some are left out."""
    collection = collected(work, *patterns, **options)
    return collection.files, bool(collection.left_out)


def fill(work: Path, *paths: str, data: bytes = b"data") -> None:
    for path in paths:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(data)


def test_only_what_changed_without_patterns(tmp_path: Path) -> None:
    upload = os.memfd_create("upload")
    os.write(upload, orders.encode_bundle({"main.py": b"x", "same": b"y", "d/changed": b"z", "gone": b"w"}))
    work_fd = os.open(tmp_path, os.O_RDONLY)
    snapshot = unpack.unpack("bundle", upload, work_fd)
    os.close(work_fd)
    os.close(upload)
    assert collect(tmp_path, snapshot=snapshot) == ({}, False)
    (tmp_path / "d/changed").write_bytes(b"Z")
    (tmp_path / "gone").unlink()
    fill(tmp_path, "new/out", "__pycache__/m.pyc", "new/__pycache__/n.pyc", ".hidden")
    files, truncated = collect(tmp_path, snapshot=snapshot)
    assert list(files) == [".hidden", "d/changed", "new/out"]
    assert files["d/changed"] == b"Z"
    assert not truncated


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("a.txt", {"a.txt"}), ("./a.txt", {"a.txt"}), ("*", {"a.txt", "b.csv"}), ("*.txt", {"a.txt"}),
        ("**", {"a.txt", "b.csv", "d/c.txt", "d/e/f.txt"}), ("**/*.txt", {"a.txt", "d/c.txt", "d/e/f.txt"}),
        ("d/", {"d/c.txt", "d/e/f.txt"}), ("d", set()), ("d/*", {"d/c.txt"}),
        ("d/**", {"d/c.txt", "d/e/f.txt"}),
        ("d/**/f.txt", {"d/e/f.txt"}), ("d/**/c.txt", {"d/c.txt"}), ("**/**/c.txt", {"d/c.txt"}),
        ("?.csv", {"b.csv"}),
        ("[ab].*", {"a.txt", "b.csv"}), ("[!a].*", {"b.csv"}), ("[a-b].*", {"a.txt", "b.csv"}),
        ("[b-z]*", {"b.csv"}),
        ("d?c.txt", set()), ("d[!x]c.txt", set()), ("d**txt", {"d/c.txt", "d/e/f.txt"}), ("[a.txt", set()),
        ("../*", set()), ("d/../a.txt", set()), ("/etc/passwd", set()), ("", set()), ("/", set()),
        ("a.txt/", set()),
        ("./", {"a.txt", "b.csv", "d/c.txt", "d/e/f.txt"}), ("*/", {"d/c.txt", "d/e/f.txt"}),
        ("x" * 2000, set()),
        ("**/", {"a.txt", "b.csv", "d/c.txt", "d/e/f.txt"}), ("***/f.txt", {"d/e/f.txt"}),
    ],
)  # fmt: skip
def test_patterns(tmp_path: Path, pattern: str, matched: set[str]) -> None:
    fill(tmp_path, "a.txt", "b.csv", "d/c.txt", "d/e/f.txt")
    files, truncated = collect(tmp_path, pattern)
    assert set(files) == matched
    assert not truncated


def test_a_pattern_cannot_take_forever() -> None:
    started = time.process_time()
    for pattern in ("*a" * 400 + "b", "**a" * 300 + "b", "**/*a/" * 150 + "b", "[a-z]*" * 160 + "!"):
        assert not module.Globs([pattern]).matches("a" * 2000 + "/" + "a" * 2000)
    assert time.process_time() - started < 5


def test_names_are_bytes(tmp_path: Path) -> None:
    fill(tmp_path, "\udcff.txt", "é.txt", "new\nline")
    assert set(collect(tmp_path, "?.txt")[0]) == {"\udcff.txt", "é.txt"}
    assert set(collect(tmp_path, "\udcff*", "new*")[0]) == {"\udcff.txt", "new\nline"}
    assert len(collect(tmp_path)[0]) == 3


@pytest.mark.parametrize("patterns", [(), ("**", "*")])
def test_no_link_and_nothing_but_regular_files(tmp_path: Path, patterns: Sequence[str]) -> None:
    outside = tmp_path / "outside"
    fill(outside, "secret")
    work = tmp_path / "work"
    fill(work, "real")
    (work / "passwd").symlink_to("/etc/passwd")
    (work / "inner").symlink_to("real")
    (work / "folder").symlink_to("../outside")
    (work / "loop").symlink_to(".")
    os.mkfifo(work / "fifo")
    os.link(work / "real", work / "twin")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(work / "socket"))
        files, truncated = collect(work, *patterns)
    assert files == {"real": b"data", "twin": b"data"}
    assert not truncated


@pytest.mark.parametrize("swap", ["fifo", "link", "parent", "gone"])
def test_a_swap_after_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str) -> None:
    outside = tmp_path / "outside"
    fill(outside, "x")
    work = tmp_path / "work"
    fill(work, "d/x", "fine")
    true_open = beneath.open_beneath

    def open_beneath(dir_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
        if path == b"d/x":
            (work / "d/x").unlink()
            if swap == "fifo":
                os.mkfifo(work / "d/x")
            elif swap == "link":
                (work / "d/x").symlink_to("/etc/passwd")
            elif swap == "parent":
                (work / "d").rmdir()
                (work / "d").symlink_to("../outside")
        return true_open(dir_fd, path, flags, mode)

    monkeypatch.setattr(beneath, "open_beneath", open_beneath)
    assert collect(work)[0] == {"fine": b"data"}


@pytest.mark.parametrize("change", [10, -2])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    fill(tmp_path, "a", "b")
    true_read = os.read

    def read(fd: int, count: int) -> bytes:
        os.truncate(tmp_path / "a", 4 + change)
        return true_read(fd, count)

    monkeypatch.setattr(os, "read", read)
    assert collect(tmp_path)[0] == {"a": b"data"[: 4 + change], "b": b"data"}


def test_caps(tmp_path: Path) -> None:
    fill(tmp_path, *(f"f{number}" for number in range(6)))
    assert collect(tmp_path, max_files=6)[1] is False
    files, truncated = collect(tmp_path, max_files=5)
    assert (len(files), truncated) == (5, True)
    files, truncated = collect(tmp_path, max_files=0)
    assert (len(files), truncated) == (0, True)
    with (tmp_path / "f1").open("wb") as sparse:
        sparse.truncate(1 << 40)
    files, truncated = collect(tmp_path, max_bytes=16)
    assert (sorted(files), truncated) == (["f0", "f2", "f3", "f4"], True)
    files, truncated = collect(tmp_path, max_entries=3)
    assert truncated


def test_large_files_are_hashed_too(tmp_path: Path) -> None:
    fill(tmp_path, "big", data=os.urandom(3_500_000))
    files, truncated = collect(tmp_path, "big")
    assert (len(files["big"]), truncated) == (3_500_000, False)


def test_what_cannot_be_stored_leaves_no_trace(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    fill(tmp_path, "b", data=bytes(3_000_000))
    fill(tmp_path, "c")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            code = 0 if collect(tmp_path) == ({"a": b"data"}, True) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("patterns", [(), ("**",)])
def test_a_tree_of_five_thousand_levels(tmp_path: Path, patterns: Sequence[str]) -> None:
    fill(tmp_path, "z")
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(5000):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=below))
            os.close(here)
            here = below
        os.close(here)
        files, truncated = collect(tmp_path, *patterns)
    finally:
        _remove_deep(tmp_path)
    assert truncated
    assert len(files) == 1 + beneath.MAX_DEPTH - 1
    assert "z" in files


def _remove_deep(root: Path) -> None:
    # pytest's clean-up recurses, so flatten the tree by moving each level's folder up into the root.
    while (root / "d").exists():
        (root / "d").rename(root / "top")
        if (root / "top/d").exists():
            (root / "top/d").rename(root / "d")
        (root / "top/f").unlink()
        (root / "top").rmdir()


def test_folders_that_cannot_be_read_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "d/x", "y")
    true_open = beneath.open_beneath

    def open_beneath(dir_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
        if path == b"d":
            raise PermissionError
        return true_open(dir_fd, path, flags, mode)

    monkeypatch.setattr(beneath, "open_beneath", open_beneath)
    assert collect(tmp_path) == ({"y": b"data"}, True)


def test_reasons_are_those_that_both_sides_know() -> None:
    assert [*REASONS, "not_collected"] == [reason.value for reason in LeftOutReason]
    limits = ("MAX_PATH_BYTES", "MAX_INDEX_BYTES", "MAX_TIME_SECONDS")
    assert [getattr(module, name) for name in limits] == [getattr(outputs, name) for name in limits]
    assert (beneath.MAX_DEPTH, beneath.MAX_NAME_BYTES) == (outputs.MAX_DEPTH, outputs.MAX_NAME_BYTES)
    assert outputs.MEASURE.size + outputs.TIME.size + len(b"\x00644\x00") == module.FILE_BYTES


def test_each_reason_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    fill(tmp_path, "fine", "\udcff", "\\xff", "long/" + "/".join(["x" * 200] * 6) + "/f")
    fill(tmp_path, "/".join("d" * outputs.MAX_DEPTH) + "/f")
    with (tmp_path / "large").open("wb") as sparse:
        sparse.truncate(1 << 40)
    found = collected(tmp_path, max_bytes=1 << 20)
    assert set(found.files) == {"fine", "\\xff"}
    assert found.left_out == {"path_too_long": 1, "too_deep": 1, "same_name": 1, "too_large": 1}
    assert collected(tmp_path, "long/", "nothing").left_out == {"path_too_long": 1, "too_deep": 1}
    assert collected(tmp_path, max_files=1).left_out == {"too_many_files": 1}
    assert "too_many_entries" in collected(tmp_path, max_entries=2).left_out


def test_no_more_is_collected_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a", "b", data=bytes(3 << 20))
    now = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    assert collected(tmp_path, seconds=0.0).files == {}
    found = collected(tmp_path, seconds=8.0)  # looked at before each file and each piece
    assert (list(found.files), found.left_out) == (["a"], {"out_of_time": 1})


def test_permissions_and_times_come_too(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", "c")
    (tmp_path / "a").chmod(0o4755)
    os.utime(tmp_path / "a", (0, 1_600_000_000))
    (tmp_path / "b").chmod(0o2640)
    os.utime(tmp_path / "b", (0, -5))
    (tmp_path / "c").chmod(0o1604)
    os.utime(tmp_path / "c", (0, 2**33))
    assert [(entry.mode, entry.modified_unix_seconds) for entry in collected(tmp_path).entries] == [
        (0o755, 1_600_000_000),
        (0o640, 0),
        (0o604, outputs.MAX_TIME_SECONDS),
    ]


def test_an_index_has_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a", "b", "c")
    monkeypatch.setattr(module, "MAX_INDEX_BYTES", outputs.COUNT.size + 2 * (1 + module.FILE_BYTES))
    found = collected(tmp_path)
    assert (list(found.files), found.left_out) == (["a", "b"], {"too_many_files": 1})


@pytest.mark.parametrize(
    ("pattern", "same"),
    [
        ("**/" * 300 + "*.csv", "**/*.csv"),
        ("a" + "**/" * 9, "a**/"),
        ("**/***/*x", "**/*x"),
        ("*" * 500, "**"),
    ],
)
def test_folders_in_any_number_are_folders_once(pattern: str, same: str) -> None:
    assert module._collapsed(pattern) == module._collapsed(same)


def test_a_pattern_twice_is_one() -> None:
    assert module.compile_patterns(["*.txt"] * 256)._ends == module.compile_patterns(["*.txt"])._ends


patterns = st.lists(st.text("ab*?/[!]-.", max_size=8), max_size=6)


@given(patterns, st.text("ab/-]!.", max_size=8))
def test_many_patterns_match_what_one_of_them_does(several: list[str], path: str) -> None:
    alone = any(module.Globs([pattern]).matches(path) for pattern in several)
    assert module.Globs(several).matches(path) == alone


def _expression(pattern: str) -> str:
    """The same as a regular expression, without what stands for a class."""
    text = re.sub(r"\*{2,}", "**", pattern)
    pieces = re.findall(r"\*\*/|\*\*|.", text, re.S)
    made, start = "", True
    for piece in pieces:
        named = {"**/": "(?:.*/)?" if start else ".*/", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        made += named.get(piece, re.escape(piece))
        start = piece.endswith("/")
    return made


@given(st.text("ab*?/", max_size=10), st.text("ab/", max_size=10))
@example("**/b", "ab")
@example("**/", "a")
@example("a/**/b", "a/bb")
@example("a/**/b", "a/b")
@example("**/b", "a/b")
def test_patterns_are_what_a_regular_expression_says(pattern: str, path: str) -> None:
    expected = re.fullmatch(_expression(pattern), path, re.S) is not None
    assert module.Globs([pattern]).matches(path) == expected
