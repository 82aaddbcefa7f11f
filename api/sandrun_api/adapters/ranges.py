"""Ranges of versions as npm writes them: `*`, `3.x`, `^3.10.0`, `~3.10`, `>=3.6 <4`, `1.2 - 2.3`, `a || b`.

Only for versions without a pre-release tag, which no interpreter here has. Each comparator is then a
half-open interval of (major, minor, patch).
Source: the documentation of node-semver.
"""

import re

MAX_LENGTH = 256
_Version = tuple[int, int, int]
_ENDLESS: _Version = (1 << 62, 0, 0)
_PART = r"(?:0|[1-9][0-9]{0,8}|[xX*])"
_COMPARATOR = re.compile(rf"(?P<operator>>=|<=|>|<|=|\^|~)?v?(?P<parts>{_PART}(?:\.{_PART}){{0,2}})\Z")
_HYPHEN = re.compile(r"\A(\S+)\s+-\s+(\S+)\Z")


def satisfies(version: str, selector: str) -> bool:
    """Whether x.y.z is in the range; what is no range holds nothing."""
    if len(selector) > MAX_LENGTH:
        return False
    major, minor, patch = (int(part) for part in version.split("."))
    try:
        return any(_in_all((major, minor, patch), part.strip()) for part in selector.split("||"))
    except ValueError:
        return False


def _in_all(version: _Version, text: str) -> bool:
    if hyphen := _HYPHEN.match(text):
        text = f">={hyphen[1]} <={hyphen[2]}"
    text = re.sub(r"(>=|<=|>|<|=|\^|~)\s+", r"\1", text)
    intervals = [_interval(word) for word in text.split()]
    return all(low <= version < high for low, high in intervals)


def _interval(word: str) -> tuple[_Version, _Version]:
    match = _COMPARATOR.match(word)
    if match is None:
        raise ValueError("no comparator")
    parts: list[int] = []
    for part in match["parts"].split("."):
        if part in ("x", "X", "*"):
            break
        parts.append(int(part))
    low, above = _filled(parts), _after(parts)
    intervals = {
        None: (low, above),
        "=": (low, above),
        ">=": (low, _ENDLESS),
        ">": (above, _ENDLESS),
        "<": (_filled([]), low),
        "<=": (_filled([]), above),
        "~": (low, _after(parts[:2])),
        "^": (low, _after(_up_to_first_nonzero(parts))),
    }
    return intervals[match["operator"]]


def _filled(parts: list[int]) -> _Version:
    major, minor, patch = [*parts, 0, 0, 0][:3]
    return major, minor, patch


def _after(parts: list[int]) -> _Version:
    """The first version that does not begin with these parts."""
    return _filled([*parts[:-1], parts[-1] + 1]) if parts else _ENDLESS


def _up_to_first_nonzero(parts: list[int]) -> list[int]:
    for index, part in enumerate(parts):
        if part:
            return parts[: index + 1]
    return parts
