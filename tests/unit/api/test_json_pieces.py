"""Documents in pieces are the documents; what is read of them is the bytes that were given."""

import base64
import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.edge.json_pieces import Chunks, Items, Members, Text, encoded, gathered
from sandrun_api.jobs.logs import STDERR, STDOUT, JobLogs

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)
OUTPUT = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(min_size=1, max_size=40)))


def lazy(value: Any) -> Any:
    """The same document, made while it is sent."""
    match value:
        case str():
            return Text(lambda: iter([value[:1], value[1:3], "", value[3:]]))
        case list():
            return Items(lambda: map(lazy, value))
        case dict():
            return Members(lambda: ((name, lazy(item)) for name, item in value.items()))
    return value


@given(JSON, st.integers(1, 50))
def test_the_bytes_are_those_of_the_document_at_once(value: Any, size: int) -> None:
    whole = msgspec.json.encode(value)
    assert b"".join(encoded(value)) == whole
    assert b"".join(encoded(lazy(value))) == whole
    pieces = list(gathered(encoded(lazy(value)), size))
    assert b"".join(pieces) == whole
    assert all(len(piece) >= size for piece in pieces[:-1])


@given(st.lists(st.binary(max_size=30)), st.integers(1, 2000))
def test_bytes_are_text_or_base64(chunks: list[bytes], times: int) -> None:
    """However they are cut, and when they are more than one part."""
    data = b"".join(chunks) * times
    found = Chunks(lambda: (chunk for _ in range(times) for chunk in chunks))
    for held in (found, Chunks.of(data)):
        assert "".join(held.base64.parts()) == base64.b64encode(data).decode()
        assert "".join(held.text.parts()) == data.decode("utf-8", "replace")
        assert bool(held) == bool(data)
        try:
            data.decode()
        except UnicodeDecodeError:
            assert not held.is_utf8
        else:
            assert held.is_utf8


@given(OUTPUT, st.integers(0, 100), st.integers(0, 100))
def test_streams_are_what_was_printed(output: list[tuple[int, bytes]], start: int, length: int) -> None:
    logs = JobLogs(1 << 20, Reservation(MemoryBudget(1 << 30)))
    printed = b""
    for stream, data in output:
        logs.append(stream, data)
        printed += data
    which = b"".join(bytes([stream]) * len(data) for stream, data in output)
    start = min(start, len(printed))
    end = min(start + length, len(printed))
    for stream in (STDOUT, STDERR):
        wanted = bytes(
            byte for byte, of in zip(printed[start:end], which[start:end], strict=True) if of == stream
        )
        assert b"".join(logs.bytes_of(stream, start, end).chunks()) == wanted
    both = logs.bytes_of()
    logs.withdraw()  # a reader that came before goes on
    assert b"".join(both.chunks()) == printed
    assert list(logs.pieces(0)) == []


def test_no_piece_is_long() -> None:
    data = b"\x01" * (1 << 20)
    document = {"a": Chunks.of(data).text, "b": Chunks.of(data).base64}
    pieces = list(gathered(encoded(document)))
    assert max(map(len, pieces)) < 128 << 10
    whole = json.loads(b"".join(pieces))
    assert whole == {"a": data.decode(), "b": base64.b64encode(data).decode()}
