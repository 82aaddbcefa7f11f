"""What a client wrote, as bytes; and the index that comes back from beside a stranger's program."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_shared import orders

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
files = st.dictionaries(words.filter(bool), st.binary(max_size=50), max_size=5)


def split_order(data: bytes) -> tuple[bytes, list[list[bytes]]]:
    """A second, independent reader of the format that encode_order documents."""
    entrypoint, *fields = data.split(b"\0")
    assert fields.pop() == b""
    lists: list[list[bytes]] = []
    while fields:
        count = int(fields.pop(0))
        lists.append(fields[:count])
        del fields[:count]
    return entrypoint, lists


def index_of(contents: dict[str, bytes]) -> bytes:
    return b"".join(
        b"%b\0%d\0%b\0" % (path.encode(), len(data), hashlib.sha256(data).hexdigest().encode())
        for path, data in contents.items()
    )


@given(
    words, st.lists(words, max_size=5), st.dictionaries(words, words, max_size=3), st.lists(words, max_size=3)
)
def test_order_roundtrip(entrypoint: str, args: list[str], env: dict[str, str], outputs: list[str]) -> None:
    order = orders.Order(entrypoint, tuple(args), env, tuple(outputs))
    expected = [args, [f"{key}={value}" for key, value in sorted(env.items())], outputs]
    assert split_order(orders.encode_order(order)) == (
        entrypoint.encode(),
        [[item.encode() for item in items] for items in expected],
    )


@pytest.mark.parametrize(
    "order",
    [
        orders.Order("a\0b"),
        orders.Order("a", args=("\0",)),
        orders.Order("a", env={"K": "\0"}),
        orders.Order("a", outputs=("*\0",)),
    ],
)
def test_nul_is_refused(order: orders.Order) -> None:
    with pytest.raises(ValueError, match="NUL"):
        orders.encode_order(order)


def test_bundle_layout() -> None:
    assert (
        orders.encode_bundle({"a.py": b"x\0y", "b": b""}) == b"a.py\x00000000000003\0x\0yb\x00000000000000\0"
    )
    with pytest.raises(ValueError, match="NUL"):
        orders.encode_bundle({"a\0": b""})


@given(files)
def test_index_roundtrip(contents: dict[str, bytes]) -> None:
    data = b"".join(contents.values())
    entries = orders.decode_index(index_of(contents), len(data))
    assert {entry.path: data[entry.offset :][: entry.size_bytes] for entry in entries} == contents


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
def test_index_that_does_not_add_up(index: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any refusal will do
        orders.decode_index(index, 1)


@given(st.binary(max_size=200), st.integers(0, 1000))
def test_hostile_index_is_refused_or_in_bounds(index: bytes, data_bytes: int) -> None:
    try:
        entries = orders.decode_index(index, data_bytes)
    except ValueError:
        return
    assert all(0 <= entry.offset <= entry.offset + entry.size_bytes <= data_bytes for entry in entries)
