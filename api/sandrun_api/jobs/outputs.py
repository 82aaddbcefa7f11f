"""The files a job left: one memfd of bytes and an index that was written beside a stranger's program."""

import io
import mimetypes
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from sandrun_api.memfds import Memfd
from sandrun_api.paths import PathError, clean
from sandrun_shared.orders import OutputEntry, decode_index

INDEX_BYTES_PER_FILE = 4096 + 80  # a path, a size and a digest
_HEX = frozenset("0123456789abcdef")


class BadIndex(Exception):
    """The index of outputs is not one; nothing in it is used."""


@dataclass(frozen=True)
class OutputFile:
    """One file: its public path (always text), its entry in the index, its media type."""

    path: str
    entry: OutputEntry
    mime_type: str


class Outputs:
    """A finished job's files."""

    def __init__(self, data: Memfd, files: tuple[OutputFile, ...]) -> None:
        self.data = data
        self.files = files
        self.by_path = {file.path: file for file in files}

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return self.data.size

    def close(self) -> None:
        """Forget the files."""
        self.data.close()


def adopt(data_fd: int, index_fd: int, max_files: int) -> Outputs:
    """Take over both descriptors. Raises BadIndex (after closing them) for anything out of order."""
    data, index = Memfd(data_fd), Memfd(index_fd)
    try:
        data.size = os.fstat(data_fd).st_size
        index_size = os.fstat(index_fd).st_size
        if index_size > max_files * INDEX_BYTES_PER_FILE:
            raise BadIndex("the index is too large")
        entries = decode_index(index.read_at(0, index_size), data.size)
        if len(entries) > max_files:
            raise BadIndex("too many files")
        files = tuple(_checked(entry) for entry in entries)
        if len({file.path for file in files}) != len(files):
            raise BadIndex("a path appears twice")
    except (ValueError, OSError):
        data.close()
        raise BadIndex("the index is not well formed") from None
    except BadIndex:
        data.close()
        raise
    finally:
        index.close()
    return Outputs(data, files)


def _checked(entry: OutputEntry) -> OutputFile:
    # A job may name its files as the kernel allows, control characters included: only leaving is refused.
    harmless = "".join("?" if ord(letter) < 32 or ord(letter) == 127 else letter for letter in entry.path)
    try:
        if clean(harmless) != harmless:
            raise BadIndex("a path is not in its plain form")
    except PathError:
        raise BadIndex("a path is not relative") from None
    if not harmless or not _HEX.issuperset(entry.sha256_hex):
        raise BadIndex("an entry is not well formed")
    path = entry.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return OutputFile(path, entry, mimetypes.guess_type(path)[0] or "application/octet-stream")


def tar_gz(outputs: Outputs) -> Iterator[bytes]:
    """The files as a tar.gz, piece by piece. Blocks while compressing."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: with a gzip header

    def packed(block: bytes) -> Iterator[bytes]:
        if piece := compressor.compress(block):
            yield piece

    for file in outputs.files:
        header = tarfile.TarInfo(file.entry.path)
        header.size = file.entry.size_bytes
        header.mode = 0o644
        yield from packed(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        for block in outputs.data.pieces(file.entry.offset, file.entry.size_bytes):
            yield from packed(block)
        yield from packed(b"\0" * (-file.entry.size_bytes % tarfile.BLOCKSIZE))
    yield from packed(b"\0" * (2 * tarfile.BLOCKSIZE))
    yield compressor.flush()


def gather(pieces: Iterator[bytes], size: int) -> bytes:
    """Pieces until they make about size bytes; b'' at the end."""
    gathered = io.BytesIO()
    for piece in pieces:
        gathered.write(piece)
        if gathered.tell() >= size:
            break
    return gathered.getvalue()
