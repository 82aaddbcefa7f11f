"""Sparse files in tar archives, in the four formats of GNU tar ("Sparse Formats" in its manual)."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_EXTENTS = 1 << 16
MAX_DIGITS = 20
_ENTRY = 24  # bytes: offset and length, each as a number of 12
_ZEROS = bytes(64 << 10)

Extents = list[tuple[int, int]]


class SparseError(Exception):
    """An inconsistent map of holes; the text says in what."""


def decimal(text: bytes) -> int:
    """Parse a number as pax headers write it. Raises SparseError."""
    if not text.isdigit() or len(text) > MAX_DIGITS:
        raise SparseError("a number in its extended header is not decimal")
    return int(text)


def of_old_entries(block: bytes, count: int, number: Callable[[bytes], int | None]) -> Extents:
    """Parse the entries of a block in the old format, up to the first empty one. Raises SparseError."""
    extents = []
    for at in range(0, count * _ENTRY, _ENTRY):
        if not block[at + 12]:
            break
        offset, length = number(block[at : at + 12]), number(block[at + 12 : at + _ENTRY])
        if offset is None or length is None:
            raise SparseError("a number in its map of holes is not octal")
        extents.append((offset, length))
    return extents


def of_numbers(numbers: list[bytes]) -> Extents:
    """Parse the map of formats 0.0 and 0.1, alternating offset and length. Raises SparseError."""
    if len(numbers) % 2 or len(numbers) > 2 * MAX_EXTENTS:
        raise SparseError("its map of holes is truncated or too long")
    values = [decimal(number) for number in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def of_data(block: Callable[[], bytes]) -> Extents:
    """Read the map of format 1.0, which fills whole blocks before the data. Raises SparseError."""
    numbers: list[bytes] = []
    wanted = 1
    text = b""
    while len(numbers) < wanted:
        text += block()
        *lines, text = text.split(b"\n")
        if len(text) > MAX_DIGITS and len(numbers) + len(lines) < wanted:
            raise SparseError("a number in its map of holes is not decimal")
        for line in lines:
            if len(numbers) == wanted:
                break
            numbers.append(line)
            if len(numbers) == 1:
                wanted += 2 * decimal(line)
                if wanted > 2 * MAX_EXTENTS:
                    raise SparseError("its map of holes is too long")
    return of_numbers(numbers[1:])


def check(extents: Extents, stored: int, size: int) -> None:
    """Whether the extents are in order within the file's size and add up to what is stored."""
    end = 0
    for offset, length in extents:
        if offset < end:
            raise SparseError("its map of holes overlaps")
        end = offset + length
    if end > size:
        raise SparseError("its map of holes is longer than the file")
    if sum(length for _, length in extents) != stored:
        raise SparseError("its map of holes does not fit its data")


def chunks(extents: Extents, size: int, some: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the whole file, holes as zeros; some(size) returns 1 to size bytes of the data."""
    at = 0
    for offset, length in [*extents, (size, 0)]:
        while at < offset:
            hole = min(offset - at, len(_ZEROS))
            yield _ZEROS[:hole]
            at += hole
        left = length
        while left:
            data = some(left)
            yield data
            left -= len(data)
        at += length
