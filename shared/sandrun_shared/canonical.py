"""JSON Canonicalization Scheme (RFC 8785): one sequence of bytes for each JSON value."""

import json
import math
from decimal import Decimal
from typing import Any

MAX_INTEGER = 2**53 - 1  # a JSON number is a double, which is inexact for larger integers


def encode(value: Any) -> bytes:
    """Encode dictionaries, sequences, strings, numbers, booleans and None canonically.

    Raises ValueError for values without a canonical form: NaN, infinities, integers above 2**53 - 1,
    lone surrogates, keys that are not strings, other types.
    """
    return _text(value).encode()


def _text(value: Any) -> str:
    match value:
        case None | bool() | str():
            return json.dumps(value, ensure_ascii=False)  # escapes exactly what ECMAScript escapes
        case int():
            if abs(value) > MAX_INTEGER:
                raise ValueError("an integer above 2**53 - 1 has no canonical form")
            return str(value)
        case float():
            return _number(value)
        case list() | tuple():
            return "[" + ",".join([_text(item) for item in value]) + "]"
        case dict():
            return "{" + ",".join([f"{_text(key)}:{_text(value[key])}" for key in _sorted(value)]) + "}"
    raise ValueError(f"{type(value).__name__} has no canonical form")


def _sorted(value: dict[Any, Any]) -> list[str]:
    if not all(isinstance(key, str) for key in value):
        raise ValueError("a key is not a string")
    return sorted(value, key=_code_units)


def _code_units(key: str) -> bytes:
    return key.encode("utf-16-be")


def _number(value: float) -> str:
    """Format a number as ECMAScript does (ECMA-262, Number::toString): the shortest digits, as in repr."""
    if not math.isfinite(value):
        raise ValueError("NaN and infinities have no canonical form")
    if value == 0:
        return "0"  # -0 too
    _, digits_tuple, exponent = Decimal(repr(abs(value))).as_tuple()
    digits = "".join(map(str, digits_tuple)).lstrip("0")
    point = len(digits) + int(exponent)  # where the decimal point is, from the first digit
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        text = digits + "0" * (point - count)
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        rest = f".{digits[1:]}" if count > 1 else ""
        text = f"{digits[0]}{rest}e{point - 1:+d}"
    return f"-{text}" if value < 0 else text
