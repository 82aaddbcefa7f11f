"""The index of a job's outputs: measured by the executor, named by the collector.

The collector runs as the job's user, so the executor does not trust it for anything that can be measured: it
hashes the data itself, and passes the names on unparsed. An index consists of the number of files; for each
its size and SHA-256 (32 bytes), in the order of the data; for each its path, NUL, its mode in octal, NUL; for
each its time of modification in seconds since 1970. Numbers have eight bytes, big-endian. Without files the
index is empty. A receipt binds all but the times.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator

import msgspec

MAX_INDEX_BYTES = 64 << 20
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255  # NAME_MAX
MAX_DEPTH = 64  # names in a path
MAX_TIME_SECONDS = 2**32 - 1
COUNT = struct.Struct(">Q")
MEASURE = struct.Struct(">Q32s")  # size, SHA-256
TIME = struct.Struct(">Q")


class OutputEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One collected file: its path, size in bytes, SHA-256 in hex, and where its bytes start.

    mode has the nine permission bits; it and the time are None in an index without them.
    """

    path: str
    size_bytes: int
    sha256_hex: str
    offset: int
    mode: int | None = None
    modified_unix_seconds: int | None = None


def is_path(path: bytes) -> bool:
    """Whether an output may have this path: relative, normalized, not too long (as in the collector)."""
    names = path.split(b"/")
    return (
        len(path) <= MAX_PATH_BYTES
        and len(names) <= MAX_DEPTH
        and b"\0" not in path
        and all(0 < len(name) <= MAX_NAME_BYTES and name not in (b".", b"..") for name in names)
    )


def shown(path: bytes) -> str:
    """Show a path as text, which is the file's address, with escapes for what is not UTF-8."""
    return path.decode("utf-8", "backslashreplace")


def signed_index(files: Iterable[tuple[bytes, int, int, str]]) -> bytes:
    """Encode what a receipt binds of an index: path, mode, size and SHA-256 in hex of each file."""
    listed = tuple(files)
    if not listed:
        return b""
    parts = [COUNT.pack(len(listed))]
    parts += [MEASURE.pack(size, bytes.fromhex(digest)) for _, _, size, digest in listed]
    parts += [b"%b\0%03o\0" % (path, mode) for path, mode, _, _ in listed]
    return b"".join(parts)


def times(seconds: Iterable[int]) -> bytes:
    """Encode the end of an index, which no receipt binds."""
    return b"".join(map(TIME.pack, seconds))


def decode_index(index: bytes, data_bytes: int) -> list[OutputEntry]:
    """Decode an index. Raises ValueError if it is inconsistent or has an invalid path."""
    if not index:
        return _checked([], data_bytes)
    if len(index) < COUNT.size:
        raise ValueError("the index of outputs is truncated")
    (count,) = COUNT.unpack_from(index)
    names_at, times_at = COUNT.size + count * MEASURE.size, len(index) - count * TIME.size
    if count == 0 or names_at > times_at:
        raise ValueError("the index of outputs is truncated")
    fields = index[names_at:times_at].split(b"\0")
    if fields.pop() != b"" or len(fields) != 2 * count:
        raise ValueError("the index of outputs is not well formed")
    measures = MEASURE.iter_unpack(memoryview(index)[COUNT.size : names_at])
    seconds = TIME.iter_unpack(memoryview(index)[times_at:])
    entries: list[OutputEntry] = []
    offset = 0
    for path, mode, (size, digest), (modified,) in zip(
        fields[0::2], fields[1::2], measures, seconds, strict=True
    ):
        if len(mode) != 3 or not set(mode) <= set(b"01234567") or modified > MAX_TIME_SECONDS:
            raise ValueError("the index of outputs is not well formed")
        entries.append(
            OutputEntry(_text(path), size, digest.hex(), offset, int(mode, 8), modified),
        )
        offset += size
    return _checked(entries, data_bytes)


def decode_first_index(index: bytes, data_bytes: int) -> list[OutputEntry]:
    """Decode an index of version 1: path, size and SHA-256 in hex, a NUL after each."""
    fields = index.split(b"\0")
    if fields.pop() != b"" or len(fields) % 3:
        raise ValueError("the index of outputs is truncated")
    entries: list[OutputEntry] = []
    offset = 0
    for path, size, digest in zip(fields[0::3], fields[1::3], fields[2::3], strict=True):
        if not size.isdigit() or len(size) > 12 or len(digest) != 64:
            raise ValueError("the index of outputs is not well formed")
        entries.append(OutputEntry(_text(path), int(size), digest.decode("ascii"), offset))
        offset += int(size)
    return _checked(entries, data_bytes)


def first_index_sha256(files: Iterable[tuple[bytes, int, str]]) -> str:
    """Hash an index of version 1 with these paths, sizes and digests (SHA-256 in hex)."""
    digest = hashlib.sha256()
    for path, size, sha256_hex in files:
        digest.update(b"%b\0%d\0%b\0" % (path, size, sha256_hex.encode()))
    return digest.hexdigest()


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _raw(entries: Iterable[OutputEntry]) -> Iterator[bytes]:
    for entry in entries:
        yield entry.path.encode("utf-8", "surrogateescape")


def _checked(entries: list[OutputEntry], data_bytes: int) -> list[OutputEntry]:
    if sum(entry.size_bytes for entry in entries) != data_bytes:
        raise ValueError("the index of outputs does not cover its data")
    paths = list(_raw(entries))
    if not all(map(is_path, paths)):
        raise ValueError("the index of outputs has a path that names no output")
    if len(set(map(shown, paths))) != len(paths):
        raise ValueError("the index of outputs has a path twice")
    return entries
