"""Anonymous files in memory: a client's bytes live in these and never on a disk (memfd_create(2))."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, TypeVar

from sandrun_api.threads import Blocking

PIECE = 64 << 10  # bytes moved at a time, so that nothing is ever held twice
INLINE_BYTES = 256 << 10  # hashed without a thread

T = TypeVar("T")


class Memfd:
    """One owned memfd; closing it twice is harmless."""

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int, size: int = 0) -> None:
        self._fd = fd
        self.size = size

    @classmethod
    def create(cls, name: str, data: bytes = b"") -> "Memfd":
        """A new memfd that holds data. Raises OSError when the process is out of descriptors or memory."""
        memfd = cls(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        try:
            memfd.append(data)
        except BaseException:
            memfd.close()
            raise
        return memfd

    def fileno(self) -> int:
        """The descriptor. Raises ValueError once closed."""
        if self._fd < 0:
            raise ValueError("the memfd is closed")
        return self._fd

    def append(self, data: bytes | memoryview) -> None:
        """Write all of data at the end."""
        self.write_at(self.size, data)
        self.size += len(data)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of data at offset, without changing the size on record."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fileno(), view, offset)
            offset += written
            view = view[written:]

    def read_at(self, offset: int, length: int) -> bytes:
        """At most length bytes at offset; fewer only at the end of the file."""
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
        """The bytes of a range, PIECE at a time. Raises EOFError if the file is shorter than the range."""
        while length > 0:
            piece = os.pread(self.fileno(), min(length, PIECE), offset)
            if not piece:
                raise EOFError("the file is shorter than it was")
            yield piece
            offset += len(piece)
            length -= len(piece)

    def duplicate(self) -> "Memfd":
        """A second handle on the same bytes, for a reader that may outlive the owner."""
        return Memfd(os.dup(self.fileno()), self.size)

    def close(self) -> None:
        """Give the bytes back; nothing remains once the last handle is closed."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


async def in_thread(
    memfd: Memfd, blocking: Blocking, function: Callable[Concatenate[Memfd, ...], T], *arguments: Any
) -> T:
    """The result of a function that blocks, given a handle on the bytes that the thread owns.

    Whoever waits here may be cancelled and close the memfd, whose number the next file gets, while the thread
    still reads. Raises OSError when the process is out of descriptors.
    """
    handle = memfd.duplicate()
    claim = threading.Lock()  # of who closes the handle: the thread, or the caller if it has not begun

    def work() -> T:
        if not claim.acquire(blocking=False):
            raise ValueError("the memfd is closed")
        try:
            return function(handle, *arguments)
        finally:
            handle.close()

    try:
        return await blocking(work)
    except BaseException:
        if claim.acquire(blocking=False):
            handle.close()
        raise


async def digest_of(memfd: Memfd, blocking: Blocking) -> str:
    """SHA-256 in hex of all bytes; of many in a thread."""
    return sha256_of(memfd) if memfd.size <= INLINE_BYTES else await in_thread(memfd, blocking, sha256_of)


def sha256_of(memfd: Memfd) -> str:
    """SHA-256 in hex of all bytes. Blocks while hashing."""
    digest = hashlib.sha256()
    for piece in memfd.pieces(0, memfd.size):
        digest.update(piece)
    return digest.hexdigest()
