"""Measurement of collected outputs: root hashes their bytes and copies their names, and parses neither."""

import hashlib
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from sandrun_shared import outputs

PIECE = 1 << 20
_NUMBERS = struct.Struct(">QQ")  # size in bytes, time in seconds


class Forged(Exception):
    """The collector's figures are inconsistent, so another program than our collector wrote them."""


@dataclass(frozen=True)
class Collected:
    """Frozen memfds: bytes, names and numbers of all files (Into in sandrun_sandbox/collect.py)."""

    data_fd: int
    names_fd: int
    numbers_fd: int

    @property
    def fds(self) -> list[int]:
        """All three."""
        return [self.data_fd, self.names_fd, self.numbers_fd]


def measure(fds: list[int], stop: threading.Event, *, most_files: int, most_bytes: int) -> str:
    """Hash each file between the offsets that the numbers give, and write the index.

    fds: those of Collected, and an empty memfd for the index (sandrun_shared.outputs). Returns the SHA-256 in
    hex of what a receipt binds. Raises Forged, OSError, InterruptedError once cancelled.
    """
    data_fd, names_fd, numbers_fd, index_fd = fds
    data_bytes, names_bytes, numbers_bytes = map(size_of, fds[:3])
    count, rest = divmod(numbers_bytes, _NUMBERS.size)
    index_bytes = outputs.COUNT.size + count * (outputs.MEASURE.size + outputs.TIME.size) + names_bytes
    if rest or count > most_files or data_bytes > most_bytes or index_bytes > outputs.MAX_INDEX_BYTES:
        raise Forged("the outputs are more than a job may leave")
    numbers = list(_NUMBERS.iter_unpack(os.pread(numbers_fd, numbers_bytes, 0)))
    if sum(size for size, _ in numbers) != data_bytes or (count == 0 and names_bytes):
        raise Forged("the outputs differ from their stated size")
    digest = hashlib.sha256()
    if count:
        for piece in _signed(numbers, data_fd, names_fd, stop):
            write(index_fd, piece)
            digest.update(piece)
        write(index_fd, outputs.times(seconds for _, seconds in numbers))
    return digest.hexdigest()


def _signed(
    numbers: list[tuple[int, int]], data_fd: int, names_fd: int, stop: threading.Event
) -> Iterator[bytes]:
    yield outputs.COUNT.pack(len(numbers))
    offset = 0
    measured = []
    for size, _ in numbers:
        digest = hashlib.sha256()
        for piece in pieces(data_fd, stop, offset, size):
            digest.update(piece)
        measured.append(outputs.MEASURE.pack(size, digest.digest()))
        offset += size
    yield b"".join(measured)
    yield from pieces(names_fd, stop)


def pieces(fd: int, stop: threading.Event, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Read a range, PIECE bytes at a time; to the end if there is no length. Raises InterruptedError."""
    left = size_of(fd) - offset if length is None else length
    while left > 0 and (piece := os.pread(fd, min(PIECE, left), offset)):
        if stop.is_set():
            raise InterruptedError
        offset += len(piece)
        left -= len(piece)
        yield piece


def write(fd: int, data: bytes) -> None:
    """Write all of it. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def size_of(fd: int) -> int:
    """Bytes of a file."""
    return os.fstat(fd).st_size
