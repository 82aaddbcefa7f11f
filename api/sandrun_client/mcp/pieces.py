"""Parts of something long that fit into an answer, cut between characters."""

from dataclasses import dataclass

PIECE_BYTES = 20_000  # of one stream, or of a file, in one answer
LARGEST_PIECE = 200_000
IMAGE_BYTES = 700_000  # of all images of one answer: some clients take no answer above 1 MB, in base64


@dataclass(frozen=True)
class Piece:
    """Bytes from start to end of something, as text; next is where the rest begins, None at the end."""

    text: str
    start: int
    end: int
    next: int | None


def piece(data: bytes, offset: int, limit: int) -> Piece:
    """At most limit bytes from the offset on."""
    start = min(offset, len(data))
    end = _boundary(data, min(start + limit, len(data)))
    return Piece(_text(data[start:end]), start, end, end if end < len(data) else None)


def ends(data: bytes, limit: int) -> tuple[str, str, int, int]:
    """The first and the last of it, limit bytes together, and where what lies between begins and ends."""
    first, last = _boundary(data, limit // 2), _boundary(data, len(data) - limit // 2)
    return _text(data[:first]), _text(data[last:]), first, last


def size_text(count: int) -> str:
    """Bytes for people and models."""
    return f"{count} bytes" if count < 10_000 else f"{count / 1000:.0f} kB"


def _boundary(data: bytes, position: int) -> int:
    """The same position, or up to three bytes before it, where a character of UTF-8 begins."""
    for back in range(4):
        if position - back <= 0 or position - back >= len(data) or data[position - back] & 0xC0 != 0x80:
            return max(0, position - back)
    return position


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
