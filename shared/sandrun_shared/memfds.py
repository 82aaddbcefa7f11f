"""Anonymous files in memory, which keep a client's bytes off every disk (memfd_create(2))."""

import hashlib
import os
from collections.abc import Iterator

PIECE = 64 << 10  # bytes copied at a time, so that no file is held twice


def create(name: str, data: bytes = b"") -> int:
    """Create a memfd with data, which can be sealed and is positioned at its start; returns its descriptor.

    Raises OSError when the process is out of descriptors or memory.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write(fd, 0, data)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write(fd: int, offset: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]


class Memfd:
    """A memfd with one owner; closing it twice is harmless."""

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int, size: int = 0) -> None:
        self._fd = fd
        self.size = size

    @classmethod
    def create(cls, name: str, data: bytes = b"") -> "Memfd":
        """Create a memfd with data. Raises OSError if the process is out of descriptors or memory."""
        return cls(create(name, data), len(data))

    def fileno(self) -> int:
        """The descriptor. Raises ValueError once closed."""
        if self._fd < 0:
            raise ValueError("the memfd is closed")
        return self._fd

    def append(self, data: bytes | memoryview) -> None:
        """Append all of data."""
        self.write_at(self.size, data)
        self.size += len(data)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of data at offset, without changing the size on record."""
        _write(self.fileno(), offset, data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read length bytes at offset; fewer only at the end of the file."""
        pieces = []
        while length > 0:
            piece = os.pread(self.fileno(), length, offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def pieces(self, offset: int, length: int) -> Iterator[bytes]:
        """Read a range, PIECE bytes at a time. Raises EOFError if the file is shorter than the range."""
        while length > 0:
            piece = os.pread(self.fileno(), min(length, PIECE), offset)
            if not piece:
                raise EOFError("the file is shorter than it was")
            yield piece
            offset += len(piece)
            length -= len(piece)

    def duplicate(self) -> "Memfd":
        """Duplicate the handle, for a reader that may outlive the owner."""
        return Memfd(os.dup(self.fileno()), self.size)

    def close(self) -> None:
        """Close the handle; the bytes are freed with the last one."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def sha256_of(memfd: Memfd) -> str:
    """Hash all bytes (SHA-256 in hex). Blocks while hashing."""
    digest = hashlib.sha256()
    for piece in memfd.pieces(0, memfd.size):
        digest.update(piece)
    return digest.hexdigest()
