"""The index of outputs: the collector and the api accept the same paths."""

import contextlib
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandrun_api.jobs.outputs import BadIndex, adopt
from sandrun_executor.receipts import measures
from sandrun_sandbox import collect
from sandrun_shared import outputs
from support.outputs import index_of

names = (
    st.binary(min_size=1, max_size=12)
    | st.sampled_from([b"\xff", b"\\xff", b"\xc3\xa9", b"\\xc3\\xa9", b"a\nb", b"\x7f", b"...", b"x" * 255])
).map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"|"))
names = names.filter(lambda name: name not in (b".", b".."))
paths = st.lists(names, min_size=1, max_size=7) | st.tuples(names, st.integers(1, 70)).map(
    lambda item: [item[0][:13]] * item[1]
)


def make(root: bytes, parts: list[bytes]) -> bool:
    """A file of that path, made level by level; whether nothing was in its way."""
    here = os.open(root, os.O_RDONLY)
    try:
        for name in parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open(parts[-1], os.O_WRONLY | os.O_CREAT, dir_fd=here))
    except (NotADirectoryError, IsADirectoryError):
        return False
    finally:
        os.close(here)
    return True


@example([[b"x" * 200] * 6])
@example([[b"\xff"], [b"\\xff"]])
@example([[b"d"] * 64, [b"e"] * 65])
@example([[b"data:text", b"html,x"], [b"a" * 255, b"b" * 255, b"c" * 255, b"d" * 255, b"e"]])
@given(st.lists(paths, max_size=6))
def test_the_api_takes_what_the_collector_lists_and_nothing_else(tree: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        there = {b"/".join(parts) for parts in tree if make(folder.encode(), parts)}
        work_fd = os.open(folder, os.O_RDONLY)
        *into, index_fd = fds = [os.memfd_create(name) for name in ("data", "names", "numbers", "index")]
        left_out = collect.collect(
            work_fd, [], b"", collect.Into(*into), max_files=100, max_bytes=1, seconds=60.0
        )
        os.close(work_fd)
        limits = {"most_files": 100, "most_bytes": 1}
        measures.measure(fds, threading.Event(), **limits)
    for fd in into[1:]:
        os.close(fd)
    adopted = adopt(into[0], index_fd, 100)  # it raises for what it would not have listed
    found = {file.entry.path.encode("utf-8", "surrogateescape") for file in adopted.files}
    adopted.close()
    missing = there - found
    told = sum(left_out[reason] for reason in ("path_too_long", "too_deep", "same_name"))
    assert found <= there
    assert bool(missing) == bool(told)
    for path in missing:
        assert not outputs.is_path(path) or outputs.shown(path) in map(outputs.shown, found)


@given(st.binary(max_size=300), st.integers(0, 1000))
def test_hostile_index_is_refused_or_in_bounds(index: bytes, data_bytes: int) -> None:
    for decode in (outputs.decode_index, outputs.decode_first_index):
        try:
            entries = decode(index, data_bytes)
        except ValueError:
            continue
        assert all(0 <= entry.offset <= entry.offset + entry.size_bytes <= data_bytes for entry in entries)


files = st.dictionaries(paths.map(b"/".join).filter(outputs.is_path), st.binary(max_size=50), max_size=5)


@given(files, st.integers(0, 0o777), st.integers(0, outputs.MAX_TIME_SECONDS))
def test_what_is_written_is_read(contents: dict[bytes, bytes], mode: int, modified: int) -> None:
    named = {path.decode("utf-8", "surrogateescape"): data for path, data in contents.items()}
    data = b"".join(contents.values())
    if len(set(map(outputs.shown, contents))) < len(contents):
        return
    entries = outputs.decode_index(index_of(named, mode, modified), len(data))
    assert {entry.path: data[entry.offset :][: entry.size_bytes] for entry in entries} == named
    assert {(entry.mode, entry.modified_unix_seconds) for entry in entries} <= {(mode, modified)}


GOOD = index_of({"a": b"x"})


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_says_something_else(place: int, byte: int) -> None:
    index = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    try:
        entries = outputs.decode_index(index, 1)
    except ValueError:
        return
    assert (entries == outputs.decode_index(GOOD, 1)) == (index == GOOD)


@pytest.mark.parametrize(
    "index",
    [
        b"a",
        b"a\0" + b"1\0",
        b"a\x001\0" + b"0" * 63 + b"\0",
        b"a\0-1\0" + b"0" * 64 + b"\0",
        b"a\x009999999999999\0" + b"0" * 64 + b"\0",
        b"a\x002\0" + b"0" * 64 + b"\0",
        b"a\x001\0" + b"\xff" * 64 + b"\0",
        "a\0\u0661\0".encode() + b"0" * 64 + b"\0",
        b"",
    ],
)
def test_a_first_index_that_does_not_add_up(index: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any refusal will do
        outputs.decode_first_index(index, 1)


def test_an_index_of_version_1_can_still_be_read() -> None:
    index = b"a\x001\0" + b"0" * 64 + b"\0b\xff\x002\0" + b"1" * 64 + b"\0"
    assert outputs.decode_first_index(index, 3) == [
        outputs.OutputEntry("a", 1, "0" * 64, 0),
        outputs.OutputEntry("b\udcff", 2, "1" * 64, 1),
    ]


def test_a_forged_index_is_no_result(tmp_path: Path) -> None:
    data_fd, index_fd = os.memfd_create("data"), os.memfd_create("index")
    os.write(index_fd, index_of({"a": b"never was"}))
    with pytest.raises(BadIndex):
        adopt(data_fd, index_fd, 10)
