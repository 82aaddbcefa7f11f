"""Files with holes in a tar archive, in the four formats of GNU tar ("Sparse Formats" in its manual)."""

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
    """A map of holes that does not add up; the text says how."""


def decimal(text: bytes) -> int:
    """A number in the way pax headers write it. Raises SparseError."""
    if not text.isdigit() or len(text) > MAX_DIGITS:
        raise SparseError("a number in its extended header is not decimal")
    return int(text)


def of_old_entries(block: bytes, count: int, number: Callable[[bytes], int | None]) -> Extents:
    """The entries of a block in the old format, up to the first empty one. Raises SparseError."""
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
    """The map of formats 0.0 and 0.1, offset and length in turn. Raises SparseError."""
    if len(numbers) % 2 or len(numbers) > 2 * MAX_EXTENTS:
        raise SparseError("its map of holes is cut or too long")
    values = [decimal(number) for number in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def of_data(block: Callable[[], bytes]) -> Extents:
    """The map of format 1.0, which stands in whole blocks before the data. Raises SparseError."""
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
    """Whether the extents lie one after the other in a file of that size and are what is stored of it."""
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
    """The whole file, holes as zeros; some(size) gives at least one byte of the data and at most size."""
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
