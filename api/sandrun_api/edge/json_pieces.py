"""JSON documents in pieces: their long texts and lists are made while they are sent, and never whole.

What a reader that does not read makes the server hold is then a piece, however large the document is.
The bytes are those that msgspec.json.encode makes of the same document at once.
"""

import base64
import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

PIECE_BYTES = 32 << 10  # of a document, about what is made at a time
_PART_BYTES = 3 << 10  # of a text; JSON may need six times as much for it. A multiple of 3, for Base64


@dataclass(frozen=True)
class Text:
    """A JSON string; `parts` makes it, each time it is called."""

    parts: Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Items:
    """A JSON array; `items` makes its elements, each time it is called."""

    items: Callable[[], Iterable[Any]]


@dataclass(frozen=True)
class Members:
    """A JSON object; `members` makes its names and values, each time it is called."""

    members: Callable[[], Iterable[tuple[str, Any]]]


@dataclass(frozen=True)
class Chunks:
    """Bytes that lie elsewhere; `chunks` reads them, each time it is called."""

    chunks: Callable[[], Iterator[bytes]]

    @classmethod
    def of(cls, data: bytes) -> "Chunks":
        """Those of bytes in hand."""
        view = memoryview(data)
        return cls(lambda: (bytes(view[at : at + _PART_BYTES]) for at in range(0, len(view), _PART_BYTES)))

    def __bool__(self) -> bool:
        return any(self.chunks())

    @property
    def is_utf8(self) -> bool:
        """Whether the bytes are text, without keeping any of it."""
        try:
            for _ in _decoded(self._parts(), "strict"):
                pass
        except UnicodeDecodeError:
            return False
        return True

    @property
    def text(self) -> Text:
        """As text, with a replacement character for what is not UTF-8."""
        return Text(lambda: _decoded(self._parts(), "replace"))

    @property
    def base64(self) -> Text:
        """In Base64."""
        return Text(lambda: (base64.b64encode(part).decode() for part in self._parts()))

    def _parts(self) -> Iterator[bytes]:
        """The same bytes, all parts but the last of one length."""
        part = bytearray()
        for chunk in self.chunks():
            part += chunk
            if len(part) >= _PART_BYTES:
                whole = len(part) - len(part) % _PART_BYTES
                for start in range(0, whole, _PART_BYTES):
                    yield bytes(part[start : start + _PART_BYTES])
                del part[:whole]
        if part:
            yield bytes(part)


def encoded(value: Any) -> Iterator[bytes]:
    """The document in pieces, small ones too. Raises UnicodeEncodeError for a lone surrogate."""
    match value:
        case Text():
            yield b'"'
            for part in value.parts():
                yield msgspec.json.encode(part)[1:-1]
            yield b'"'
        case dict():
            yield from _object(value.items())
        case Members():
            yield from _object(value.members())
        case list() | tuple():
            yield from _array(value)
        case Items():
            yield from _array(value.items())
        case _:
            yield msgspec.json.encode(value)


def gathered(pieces: Iterator[bytes], size: int = PIECE_BYTES) -> Iterator[bytes]:
    """The same bytes in pieces of at least that size, but for the last."""
    held, length = list[bytes](), 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= size:
            del piece  # while the reader takes its time only what is yielded remains
            whole = b"".join(held)
            held.clear()
            length = 0
            yield whole
    if held:
        yield b"".join(held)


def _object(members: Iterable[tuple[str, Any]]) -> Iterator[bytes]:
    before = b"{"
    for name, value in members:
        yield before + msgspec.json.encode(name) + b":"
        yield from encoded(value)
        before = b","
    yield b"{}" if before == b"{" else b"}"


def _array(items: Iterable[Any]) -> Iterator[bytes]:
    before = b"["
    for item in items:
        yield before
        yield from encoded(item)
        before = b","
    yield b"[]" if before == b"[" else b"]"


def _decoded(parts: Iterator[bytes], errors: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    for part in parts:
        yield decoder.decode(part)
    yield decoder.decode(b"", True)
