"""Root measures what a collector filled, and trusts none of it."""

import hashlib
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_executor.receipts.measures import Collected, Forged, measure
from sandrun_shared import outputs
from support.executor import memfd
from support.outputs import index_of, signed_sha256

LIMITS = {"most_files": 4, "most_bytes": 1 << 20}
sizes = st.integers(0, 2**64 - 1)


def numbers(*pairs: tuple[int, int]) -> bytes:
    return b"".join(value.to_bytes(8, "big") for pair in pairs for value in pair)


def measured(data: bytes, names: bytes, written: bytes, **limits: int) -> tuple[bytes, str]:
    """The index, and what a receipt must state of it."""
    collected = Collected(memfd(data), memfd(names), memfd(written))
    fds = [*collected.fds, memfd(b"")]
    try:
        digest = measure(fds, threading.Event(), **{**LIMITS, **limits})
        return os.pread(fds[3], 1 << 20, 0), digest
    finally:
        for fd in fds:
            os.close(fd)


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_digests_are_those_of_the_data() -> None:
    files = {"a": b"one", "b/\udcff": b"", "c": bytes(300_000)}
    names = b"a\x00755\0b/\xff\x00755\0c\x00755\0"
    index, digest = measured(b"".join(files.values()), names, numbers((3, 7), (0, 7), (300_000, 7)))
    assert (index, digest) == (index_of(files, 0o755, 7), signed_sha256(files, 0o755))
    assert [entry.path for entry in outputs.decode_index(index, 300_003)] == list(files)


def test_nothing_is_an_empty_index() -> None:
    assert measured(b"", b"", b"") == (b"", hashlib.sha256().hexdigest())


def test_names_are_not_looked_into() -> None:
    """Names are for the api to refuse: one that leaves the folder, a missing one, a digest instead."""
    for names in (b"../x\x00644\0", b"", b"a\0b\0c\0", b"\0" * 40):
        index, _ = measured(b"x", names, numbers((1, 0)))
        with pytest.raises(ValueError, match="index of outputs"):
            outputs.decode_index(index, 1)


@pytest.mark.parametrize(
    ("data", "names", "written"),
    [
        (b"x", b"a\x00644\0", numbers((2, 0))),
        (b"xx", b"a\x00644\0", numbers((1, 0))),
        (b"x", b"", b""),
        (b"", b"a\x00644\0", b""),
        (b"x", b"a\x00644\0", numbers((1, 0))[:15]),
        (b"x", b"a\x00644\0", numbers((1, 0)) + b"\0"),
        (b"x", b"a\x00644\0" * 2, numbers((2**64 - 1, 0), (2, 0))),
        (b"", b"a\x00644\0" * 5, numbers(*[(0, 0)] * 5)),
        (bytes((1 << 20) + 1), b"a\x00644\0", numbers(((1 << 20) + 1, 0))),
        (b"", bytes(outputs.MAX_INDEX_BYTES), numbers((0, 0))),
    ],
)
def test_what_does_not_add_up_is_forged(data: bytes, names: bytes, written: bytes) -> None:
    with pytest.raises(Forged):
        measured(data, names, written)


def test_holes_of_a_tebibyte_are_not_read() -> None:
    fds = [memfd(b""), memfd(b""), memfd(b""), memfd(b"")]
    try:
        for fd in fds[:3]:
            os.ftruncate(fd, 1 << 40)
            with pytest.raises(Forged):
                measure(fds, threading.Event(), **LIMITS)
            os.ftruncate(fd, 0)
    finally:
        for fd in fds:
            os.close(fd)


@given(
    st.binary(max_size=60), st.binary(max_size=60), st.lists(st.tuples(sizes, sizes), max_size=5) | st.none()
)
def test_whatever_is_written_is_forged_or_in_bounds(
    data: bytes, names: bytes, pairs: list[tuple[int, int]] | None
) -> None:
    written = numbers((len(data), 5)) if pairs is None else numbers(*pairs)
    try:
        index, digest = measured(data, names, written)
        entries = outputs.decode_index(index, len(data))
    except (Forged, ValueError):
        return
    assert digest == hashlib.sha256(index[: len(index) - 8 * len(entries)]).hexdigest()
    for entry in entries:
        content = data[entry.offset : entry.offset + entry.size_bytes]
        assert hashlib.sha256(content).hexdigest() == entry.sha256_hex


def test_nobody_wants_it_any_more() -> None:
    stop = threading.Event()
    stop.set()
    fds = [memfd(b"x"), memfd(b"a\x00644\0"), memfd(numbers((1, 0))), memfd(b"")]
    try:
        with pytest.raises(InterruptedError):
            measure(fds, stop, **LIMITS)
    finally:
        for fd in fds:
            os.close(fd)
