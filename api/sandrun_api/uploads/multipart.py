"""Multipart bodies (RFC 2046, 5.1), part by part as they arrive; little is held at any time."""

import re
from collections.abc import Callable, Mapping
from typing import Protocol

HEAD_BYTES = 16 << 10  # of the header fields of one part
PADDING_BYTES = 1024  # behind a boundary
BOUNDARY_BYTES = 256  # RFC 2046 has 70; some libraries write longer ones

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PADDING = b" \t"
_AFTER = rb"(?:(?P<last>--)|[ \t]{0,%d}+(?:(?P<next>\r\n)|\r?\Z)|-\Z)" % PADDING_BYTES


class MultipartError(ValueError):
    """A body that is not multipart; the text says why, and is the end of a sentence about the body."""


class Parts(Protocol):
    """What takes the parts: `begin` each, `data` as it comes, `end` each."""

    def begin(self, headers: Mapping[str, bytes]) -> None:
        """A part with these header fields, whose names are in lower case."""

    def data(self, piece: memoryview) -> None:
        """More of the part."""

    def end(self) -> None:
        """The part is complete."""


class Reader:
    """Finds the parts in a body that is written to it in pieces of any size; raises MultipartError.

    The preamble, the epilogue and the padding behind a boundary mean nothing (RFC 2046, 5.1.1). A line that
    only begins like a boundary belongs to the part.
    """

    def __init__(self, boundary: bytes, parts: Parts) -> None:
        if not boundary:
            raise MultipartError("has no boundary")
        if len(boundary) > BOUNDARY_BYTES or boundary.endswith(b" ") or not boundary.isascii():
            raise MultipartError(f"has a boundary that is not 1 to {BOUNDARY_BYTES} characters of ASCII")
        self._parts = parts
        self._delimiter = b"\r\n--" + boundary
        self._line = re.compile(re.escape(self._delimiter) + _AFTER)
        # A boundary follows a line's end: the one before the body, or that of the empty line after a head,
        # serves too. It is put before what comes, and not handed over.
        self._held = bytearray(b"\r\n")
        self._lent = 2
        self._read: Callable[[], bool] = self._preamble
        self._has_begun = self._has_end = False

    def write(self, data: bytes) -> None:
        """More of the body."""
        if self._has_end:
            return
        self._held += data
        while self._read():
            pass

    def finish(self) -> None:
        """That was all."""
        if not self._has_end:
            missing = "its last boundary" if self._has_begun else "its first boundary"
            raise MultipartError(f"is cut: {missing} is missing")

    def _preamble(self) -> bool:
        return self._up_to_boundary(lambda _: None)

    def _content(self) -> bool:
        if not self._up_to_boundary(self._parts.data):
            return False
        self._parts.end()
        return True

    def _up_to_boundary(self, take: Callable[[memoryview], None]) -> bool:
        """Hand over what is before the next boundary; whether the boundary is there."""
        at = self._held.find(self._delimiter)
        match = None if at < 0 else self._line.search(self._held, at)
        if match is None:
            # What could be the beginning of a boundary waits for the rest.
            self._hand_over(len(self._held) - self._partial(), take)
            return False
        start, end, kind = match.start(), match.end(), match.lastgroup
        del match  # it holds the buffer, which can then not be cut
        self._hand_over(start, take)
        if kind is None:
            return False  # a boundary, if it goes on like one
        del self._held[: end - start]
        self._lent = 0
        self._read = self._epilogue if kind == "last" else self._head
        return True

    def _partial(self) -> int:
        """The length of the longest end of what is held that a boundary could begin with."""
        tail = self._held[-(len(self._delimiter) - 1) :]
        at = tail.find(b"\r")
        while at >= 0:
            if self._delimiter.startswith(tail[at:]):
                return len(tail) - at
            at = tail.find(b"\r", at + 1)
        return 0

    def _hand_over(self, size: int, take: Callable[[memoryview], None]) -> None:
        if size <= 0:
            return
        with memoryview(self._held) as held:
            piece = bytes(held[:size])
        del self._held[:size]
        lent, self._lent = min(self._lent, size), max(0, self._lent - size)
        if size > lent:
            take(memoryview(piece)[lent:])

    def _head(self) -> bool:
        """Read the fields of a part, up to the empty line."""
        held = self._held
        end = 0 if held.startswith(b"\r\n") else held.find(b"\r\n\r\n", 0, HEAD_BYTES + 4)
        if end < 0 and len(held) >= HEAD_BYTES + 4:
            raise MultipartError(f"has a part with more than {HEAD_BYTES >> 10} KiB of header fields")
        if end < 0:
            return False
        lines = bytes(held[:end])
        del held[: end + (4 if lines else 2)]
        self._has_begun = True
        self._parts.begin(_fields(lines))
        held[:0] = b"\r\n"
        self._lent = 2
        self._read = self._content
        return True

    def _epilogue(self) -> bool:
        self._held.clear()
        self._has_end = True
        return False


def _fields(lines: bytes) -> dict[str, bytes]:
    """The fields of a part, folded ones unfolded (RFC 5322, 2.2.3)."""
    fields: dict[str, bytes] = {}
    for line in re.sub(rb"\r\n([ \t])", rb"\1", lines).split(b"\r\n") if lines else ():
        name, colon, value = line.partition(b":")
        name = name.rstrip(_PADDING)
        if not colon or not _NAME.fullmatch(name) or b"\0" in value or b"\r" in value or b"\n" in value:
            raise MultipartError("has a part with a line that is no header field")
        key = name.decode().lower()
        if key in fields:
            raise MultipartError(f"has a part with two header fields '{key[:40]}'")
        fields[key] = value.strip(_PADDING)
    return fields
