"""Header fields whose value has parameters: Content-Type and Content-Disposition, of requests and of parts.

Sources: RFC 9110, 5.6.6; RFC 2045, 5.1; RFC 7578, 4.2; RFC 8187, 3.2.
"""

import re
from urllib.parse import unquote_to_bytes

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# An unquoted value may hold what only quoted ones should: slashes of paths, and characters of other scripts.
_PARAMETER = re.compile(
    rf"[ \t]*(?P<name>{_WORD})[ \t]*=[ \t]*"
    r'(?:"(?P<quoted>(?:\\.|[^"\\]|\\(?="))*)"|(?P<plain>[^;"]*))[ \t]*',
    re.DOTALL,
)
_EXTENDED = re.compile(
    r"(?P<charset>[A-Za-z0-9-]+)'[A-Za-z0-9-]*'(?P<value>(?:%[0-9A-Fa-f]{2}|[!#$&+.^_`|~0-9A-Za-z-])*)"
)
_ESCAPED = re.compile(r'\\(["\\])')
_CHARSETS = {"utf-8": "utf-8", "iso-8859-1": "latin-1"}


class FieldError(ValueError):
    """A field that cannot be read; the text says why, without quoting it."""


def parse_options(value: str) -> tuple[str, dict[str, str]]:
    """What a field names, in lower case, and its parameters by their names in lower case.

    Of quoted pairs only those of a quote and a backslash are undone: browsers write names as they are, and
    some have backslashes. A parameter with an asterisk is the extended form (RFC 8187), which wins over the
    other. Raises FieldError.
    """
    first, semicolon, rest = value.partition(";")
    found: dict[str, str] = {}
    extended: dict[str, str] = {}
    at = 0
    while semicolon and at <= len(rest):
        if not rest[at:].partition(";")[0].strip(" \t"):  # nothing between two semicolons, or after the last
            at = rest.find(";", at) + 1 or len(rest) + 1
            continue
        match = _PARAMETER.match(rest, at)
        if match is None or rest[match.end() : match.end() + 1] not in ("", ";"):
            raise FieldError("has a parameter that is not name=value")
        at = match.end() + 1
        name, text = (
            match["name"].lower(),
            match["plain"].rstrip(" \t") if match["quoted"] is None else match["quoted"],
        )
        if match["quoted"] is not None:
            text = _ESCAPED.sub(r"\1", text)
        if name in found or name in extended:
            raise FieldError(f"has the parameter '{name[:40]}' twice")
        if "*" not in name:
            found[name] = text
        elif name.endswith("*") and name.count("*") == 1:
            extended[name] = _extended(name, text)
        else:
            raise FieldError("has a parameter in several pieces (RFC 2231), which are not put together here")
    return first.strip(" \t").lower(), {**found, **{name[:-1]: text for name, text in extended.items()}}


def _extended(name: str, text: str) -> str:
    match = _EXTENDED.fullmatch(text)
    codec = _CHARSETS.get(match["charset"].lower()) if match is not None else None
    if match is None or codec is None:
        raise FieldError(f"has a parameter '{name[:40]}' that is not UTF-8''percent-encoded (RFC 8187)")
    return unquote_to_bytes(match["value"]).decode(codec, "surrogateescape")
