"""Decompress streams piece by piece, with bounded memory; one stream may follow another.

gzip (RFC 1952, 2.2), bzip2 and xz files are concatenations: `pigz -i`, `bgzip` and `cat` make such.
"""

from __future__ import annotations

import os

from sandrun_shared.archives.members import CHUNK_BYTES, ArchiveError, NotThisKind

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    class Decompressor(Protocol):
        """The interface that bz2 and lzma share."""

        @property
        def eof(self) -> bool: ...
        @property
        def needs_input(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


MAGIC = {
    "tar.gz": b"\x1f\x8b\x08",
    "tar.bz2": b"BZh",
    "tar.xz": b"\xfd7zXZ\0",
}
XZ_MEMORY = 96 << 20  # bytes; `xz -9` needs 65 MiB


class TrailingBytes(ArchiveError):
    """The last compressed stream is followed by bytes that do not begin another."""


def extent(fd: int, start: int, size: int) -> Iterator[bytes]:
    """Read at most size bytes of a file from start on, in pieces, without using or moving its offset."""
    while size > 0:
        piece = os.pread(fd, min(size, CHUNK_BYTES), start)
        if not piece:
            return
        yield piece
        start += len(piece)
        size -= len(piece)


def pieces(kind: str, fd: int) -> Iterator[bytes]:
    """Decompress an upload of that kind (`sandrun_shared.jobs.UploadKind`) to a tar archive in pieces.

    Raises NotThisKind at once, ArchiveError if compressed data are damaged or truncated, TrailingBytes after
    them.
    """
    source = extent(fd, 0, os.fstat(fd).st_size)
    if kind == "tar":
        return source
    if not os.pread(fd, 8, 0).startswith(MAGIC[kind]):
        raise NotThisKind(f"The upload is not a {kind} archive.")
    return _decompressed(source, *_tools(kind), MAGIC[kind])


class _Gzip:
    """zlib's decompressor of a gzip member, adapted to the interface of bz2 and lzma."""

    def __init__(self, zlib: Any) -> None:
        self._inner = zlib.decompressobj(31)  # 16: a gzip header; 15: any window

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return bytes(self._inner.decompress(self._inner.unconsumed_tail + data, max_length))


def _tools(kind: str) -> tuple[Callable[[], Decompressor], type[Exception]]:
    """Look up the constructor of a decompressor, and what it raises."""
    if kind == "tar.gz":
        import zlib  # noqa: PLC0415

        return lambda: _Gzip(zlib), zlib.error
    if kind == "tar.bz2":
        from _bz2 import BZ2Decompressor  # noqa: PLC0415  # bz2 would import more

        return BZ2Decompressor, OSError
    from _lzma import FORMAT_XZ, LZMADecompressor, LZMAError  # noqa: PLC0415

    return lambda: LZMADecompressor(FORMAT_XZ, memlimit=XZ_MEMORY), LZMAError


def _decompressed(
    source: Iterator[bytes], fresh: Callable[[], Decompressor], error: type[Exception], magic: bytes
) -> Iterator[bytes]:
    data = next(source, b"")
    while True:
        stream = fresh()
        while not stream.eof:
            if stream.needs_input and not data:
                data = next(source, b"")
                if not data:
                    raise ArchiveError("The archive is truncated: its compressed data end too early.")
            try:
                piece = stream.decompress(data, CHUNK_BYTES)
            except error as fault:
                raise ArchiveError(f"The archive's compressed data are damaged: {fault}.") from None
            data = b""
            yield piece  # even an empty one, so that the caller's deadline covers streams without data
        data = _next_stream(stream.unused_data, source, magic)
        if not data:
            return


def _next_stream(rest: bytes, source: Iterator[bytes], magic: bytes) -> bytes:
    """Skip the zeros after a stream; returns what follows, b'' at the end. Raises TrailingBytes."""
    rest = rest.lstrip(b"\0")
    while len(rest) < len(magic):
        more = next(source, b"")
        if not more:
            break
        rest = (rest + more).lstrip(b"\0")
    if rest and not rest.startswith(magic):
        raise TrailingBytes("The archive's compressed data are followed by other bytes.")
    return rest


class Feed:
    """Reads bytes from pieces; offset counts them."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.offset = 0
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def some(self, size: int) -> bytes:
        """Return at least one byte and at most size; b'' at the end."""
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._piece, self._at = piece, 0
        data = self._piece[self._at : self._at + size]
        self._at += len(data)
        self.offset += len(data)
        return data

    def upto(self, size: int) -> bytes:
        """Return size bytes, fewer at the end."""
        data = self.some(size)
        while len(data) < size:
            more = self.some(size - len(data))
            if not more:
                break
            data += more
        return data
