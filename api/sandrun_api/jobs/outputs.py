"""The files a job left: their bytes in a memfd, and an index whose names a stranger chose."""

import io
import mimetypes
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from sandrun_shared import outputs as index_of
from sandrun_shared.memfds import Memfd
from sandrun_shared.outputs import OutputEntry, decode_index

INDEX_BYTES_PER_FILE = index_of.MAX_PATH_BYTES + 64  # with a mode, a time, a size and a digest


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
        if index_size > index_of.COUNT.size + max_files * INDEX_BYTES_PER_FILE:
            raise BadIndex("the index is too large")
        entries = decode_index(index.read_at(0, index_size), data.size)
        if len(entries) > max_files:
            raise BadIndex("too many files")
        files = tuple(_output(entry) for entry in entries)
    except (ValueError, OSError):
        data.close()
        raise BadIndex("the index is not well formed") from None
    except BadIndex:
        data.close()
        raise
    finally:
        index.close()
    return Outputs(data, files)


def _output(entry: OutputEntry) -> OutputFile:
    path = index_of.shown(entry.path.encode("utf-8", "surrogateescape"))
    # A name alone could be taken for a URL: that of a "data:" one says its type itself.
    return OutputFile(path, entry, mimetypes.guess_type("./" + path)[0] or "application/octet-stream")


def tar_gz(outputs: Outputs) -> Iterator[bytes]:
    """The files as a tar.gz, piece by piece. Blocks while compressing."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: with a gzip header

    def packed(block: bytes) -> Iterator[bytes]:
        if piece := compressor.compress(block):
            yield piece

    for file in outputs.files:
        header = tarfile.TarInfo(file.entry.path)
        header.size = file.entry.size_bytes
        header.mode = 0o644 if file.entry.mode is None else file.entry.mode
        header.mtime = file.entry.modified_unix_seconds or 0
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
