"""What a client wrote, as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_shared import orders

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


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
