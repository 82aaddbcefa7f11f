"""RFC 8785: its own examples, and properties that any canonical form has."""

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_shared import canonical

# RFC 8785, appendix B: IEEE 754 bits, and the number as JSON.
NUMBERS = """\
0000000000000000 0
8000000000000000 0
0000000000000001 5e-324
8000000000000001 -5e-324
7fefffffffffffff 1.7976931348623157e+308
ffefffffffffffff -1.7976931348623157e+308
4340000000000000 9007199254740992
c340000000000000 -9007199254740992
4430000000000000 295147905179352830000
44b52d02c7e14af5 9.999999999999997e+22
44b52d02c7e14af6 1e+23
44b52d02c7e14af7 1.0000000000000001e+23
444b1ae4d6e2ef4e 999999999999999700000
444b1ae4d6e2ef4f 999999999999999900000
444b1ae4d6e2ef50 1e+21
3eb0c6f7a0b5ed8c 9.999999999999997e-7
3eb0c6f7a0b5ed8d 0.000001
41b3de4355555553 333333333.3333332
41b3de4355555554 333333333.33333325
41b3de4355555555 333333333.3333333
41b3de4355555556 333333333.3333334
41b3de4355555557 333333333.33333343
becbf647612f3696 -0.0000033333333333333333
43143ff3c1cb0959 1424953923781206.2"""

strings = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53) + 1, 2**53 - 1)
values = st.recursive(
    st.none() | st.booleans() | strings | numbers,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("line", NUMBERS.splitlines())
def test_numbers_of_the_rfc(line: str) -> None:
    bits, text = line.split()
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical.encode(value).decode() == text


def test_example_of_the_rfc() -> None:
    document = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    assert canonical.encode(document).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_by_utf16_code_units() -> None:
    keys = ["€", "\r", "\ufb33", "1", "😀", "\u0080", "ö"]
    document = json.loads(canonical.encode(dict.fromkeys(keys, 0)))
    assert list(document) == ["\r", "1", "\u0080", "ö", "€", "😀", "\ufb33"]


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 2**53, -(2**53), "\ud800", {1: 2}, {"\udfff": 1}, b"", object()]
)
def test_what_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (that it is one is all there is to say)
        canonical.encode([value])


@given(values)
def test_reading_it_gives_the_value_and_writing_that_the_bytes(value: Any) -> None:
    data = canonical.encode(value)
    again = json.loads(data, parse_int=float)  # as ECMAScript reads it
    assert again == value
    assert canonical.encode(again) == data


@given(st.dictionaries(strings, numbers, min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, float]) -> None:
    assert canonical.encode(dict(reversed(value.items()))) == canonical.encode(value)
