"""Read ZIP archives by their central directory (APPNOTE.TXT 6.3.10), verifying each size and checksum.

The standard library's reader differs between versions of Python, hence between api and sandbox.
"""

from __future__ import annotations

import os

from sandrun_shared.archives.members import (
    CHUNK_BYTES,
    FILE,
    FOLDER,
    SYMLINK,
    ArchiveError,
    Member,
    NotThisKind,
    of_no_use,
    refused,
)
from sandrun_shared.archives.names import MAX_TARGET, shown
from sandrun_shared.archives.streams import Feed, extent

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Iterator

_END, _END_BYTES, _MAX_COMMENT = b"PK\5\6", 22, 65535
_END64, _END64_BYTES = b"PK\6\6", 56
_LOCATOR64, _LOCATOR64_BYTES = b"PK\6\7", 20
_ENTRY, _ENTRY_BYTES = b"PK\1\2", 46
_LOCAL, _LOCAL_BYTES = b"PK\3\4", 30
_ALL_ONES = 0xFFFFFFFF  # the value is in the ZIP64 field
_ZIP64_FIELD, _NAME_FIELD = 0x0001, 0x7075
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x41  # bits 0 and 6 of the flags
_UNIX = (3, 19)  # made by (4.4.2): Unix, macOS
# FAT, HPFS, NTFS by APPNOTE, NTFS by Info-ZIP, VFAT: '\' separates folders and cannot be part of a name.
_DOS = (0, 6, 10, 11, 14)
_FIFO, _FOLDER, _REGULAR, _SYMLINK = 0o010000, 0o040000, 0o100000, 0o120000  # stat(2), as in the standard


def _number(data: bytes, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "little")


def _damaged(what: str) -> ArchiveError:
    return ArchiveError(f"The archive is damaged: {what}.")


def members(fd: int) -> Iterator[Member]:
    """Iterate over the members in the order of the central directory. Raises ArchiveError."""
    if not _read(fd, 0, 4).startswith((_LOCAL, _END)):
        raise NotThisKind("The upload is not a ZIP archive.")
    start, length, count = _table(fd)
    feed = Feed(extent(fd, start, length))
    last = ""
    seen = 0
    while feed.offset < length:
        entry = _next_entry(feed, length, last)
        last = shown(entry.name)
        seen += 1
        yield _member(fd, entry)
    # Writers without ZIP64 count modulo 2**16.
    if (seen - count) % (1 << 16):
        raise _damaged(f"its table of contents has {seen} entries and says it has {count}")


def _table(fd: int) -> tuple[int, int, int]:
    """Locate the central directory: start and length in bytes, number of entries."""
    size = os.fstat(fd).st_size
    room = min(size, _END_BYTES + _MAX_COMMENT)
    tail = _read(fd, size - room, room)
    place = tail.rfind(_END, 0, max(room - _END_BYTES + len(_END), 0))
    if place < 0:
        raise ArchiveError("The archive is truncated: the table of contents at its end is missing.")
    end = tail[place : place + _END_BYTES]
    parts, count = _number(end, 4, 2) | _number(end, 6, 2), _number(end, 10, 2)
    length, offset = _number(end, 12, 4), _number(end, 16, 4)
    behind = size - room + place
    locator = _read(fd, behind - _LOCATOR64_BYTES, _LOCATOR64_BYTES) if behind >= _LOCATOR64_BYTES else b""
    if locator.startswith(_LOCATOR64):
        behind -= _LOCATOR64_BYTES + _END64_BYTES
        end = _read(fd, behind, _END64_BYTES) if behind >= 0 else b""
        if not end.startswith(_END64):
            raise _damaged("the end of its table of contents is not where it should be")
        parts, count = _number(end, 16, 4) | _number(end, 20, 4), _number(end, 32, 8)
        length, offset = _number(end, 40, 8), _number(end, 48, 8)
    if parts:
        raise ArchiveError("The archive is one part of several; send one that is whole.")
    # Other readers skip bytes before the archive, which would lose the first files of `cat a.zip b.zip`.
    if offset + length != behind:
        raise _damaged(f"its table of contents is not where it should be, at byte {offset}")
    return offset, length, count


def _read(fd: int, start: int, size: int) -> bytes:
    return b"".join(extent(fd, start, size))


class _Entry:
    """An entry of the central directory, with its name as stored."""

    def __init__(self, data: bytes, name: bytes, extra: bytes) -> None:
        self.name = name
        self.system, self.flags, self.method = data[5], _number(data, 8, 2), _number(data, 10, 2)
        self.time, self.date = _number(data, 12, 2), _number(data, 14, 2)
        self.crc, self.attributes = _number(data, 16, 4), _number(data, 38, 4)
        self.extra = _fields(extra)
        wide = self.extra.get(_ZIP64_FIELD, b"")
        values = []
        for value in (_number(data, 24, 4), _number(data, 20, 4), _number(data, 42, 4)):
            if value == _ALL_ONES:
                if len(wide) < 8:
                    raise _damaged(f"the sizes of member '{shown(name)}' are missing")
                values.append(_number(wide, 0, 8))
                wide = wide[8:]
            else:
                values.append(value)
        self.size, self.packed, self.offset = values

    @property
    def mode(self) -> int:
        """Its type and permissions, 0 if the maker's system has none (4.4.15)."""
        return self.attributes >> 16 if self.system in _UNIX else 0


def _fields(extra: bytes) -> dict[int, bytes]:
    """Parse the extra fields by number; drops a truncated one."""
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        end = at + 4 + _number(extra, at + 2, 2)
        if end <= len(extra):
            fields.setdefault(_number(extra, at, 2), extra[at + 4 : end])
        at = end
    return fields


def _next_entry(feed: Feed, length: int, last: str) -> _Entry:
    at = feed.offset
    data = feed.upto(_ENTRY_BYTES)
    sizes = [_number(data, start, 2) for start in (28, 30, 32)]
    if len(data) < _ENTRY_BYTES or not data.startswith(_ENTRY) or at + _ENTRY_BYTES + sum(sizes) > length:
        after = f", after member '{last}'" if last else ""
        raise _damaged(f"its table of contents, at byte {at} of the table{after}")
    name, extra, _ = [feed.upto(size) if size else b"" for size in sizes]
    return _Entry(data, name, extra)


def _name(entry: _Entry) -> bytes:
    """Decode the name to UTF-8, with '/' between folders."""
    import zlib  # noqa: PLC0415

    name = entry.name
    field = entry.extra.get(_NAME_FIELD, b"")
    if field[:1] == b"\1" and _number(field, 1, 4) == zlib.crc32(name) and _is_text(field[5:]):
        name = field[5:]  # 4.6.9: if its checksum is that of the name
    elif not _is_text(name):
        name = name.decode("cp437").encode()
    if entry.system in _DOS and b"/" not in name:
        name = name.replace(b"\\", b"/")
    return name


def _is_text(name: bytes) -> bool:
    try:
        return bool(name.decode())
    except UnicodeDecodeError:
        return False


def _member(fd: int, entry: _Entry) -> Member:
    name = _name(entry)
    if not name:
        raise _damaged("it has a member without a name")
    if entry.flags & _ENCRYPTED:
        raise refused(name, "is encrypted")
    mode, mtime = entry.mode, _seconds(entry.date, entry.time)
    permissions, kind = mode & 0o7777 or None, mode & 0o170000
    if name.endswith(b"/") or kind == _FOLDER:
        if entry.size:
            raise refused(name, "is a folder that has bytes")
        return Member(name, FOLDER, permissions, mtime)
    if kind not in (0, _REGULAR, _SYMLINK):
        raise of_no_use(name, "a FIFO" if kind == _FIFO else "a device or socket")
    if entry.method not in (_STORED, _DEFLATED):
        raise refused(name, "is compressed in a way other than deflate")
    chunks = _verified(entry, _contents(fd, entry))
    if kind == _SYMLINK:
        if entry.size > MAX_TARGET:
            raise refused(name, f"is a link to a path of more than {MAX_TARGET} bytes")
        return Member(name, SYMLINK, permissions, mtime, target=b"".join(chunks))
    return Member(name, FILE, permissions, mtime, size=entry.size, chunks=chunks)


def _contents(fd: int, entry: _Entry) -> Iterator[bytes]:
    """Yield the member's bytes, not yet verified."""
    shown_name = shown(entry.name)
    start = entry.offset
    local = _read(fd, start, _LOCAL_BYTES) if start < 1 << 62 else b""  # off_t has a sign
    sizes = _number(local, 26, 2), _number(local, 28, 2)
    start += _LOCAL_BYTES
    if not local.startswith(_LOCAL) or _read(fd, start, sizes[0]) != entry.name:
        raise _damaged(f"member '{shown_name}' is not where its table of contents says")
    packed = extent(fd, start + sum(sizes), entry.packed)
    return packed if entry.method == _STORED else _inflated(packed, shown_name)


def _inflated(packed: Iterator[bytes], shown_name: str) -> Iterator[bytes]:
    import zlib  # noqa: PLC0415

    stream = zlib.decompressobj(-15)  # deflate alone, without a header
    data = next(packed, b"")
    while not stream.eof:
        try:
            chunk = stream.decompress(data, CHUNK_BYTES)
        except zlib.error as fault:
            raise _damaged(f"member '{shown_name}': {fault}") from None
        if not data and not chunk:
            raise _damaged(f"the data of member '{shown_name}' are truncated")
        data = stream.unconsumed_tail or next(packed, b"")
        if chunk:
            yield chunk
    if stream.unused_data or data:
        raise _damaged(f"the data of member '{shown_name}' are followed by others")


def _verified(entry: _Entry, chunks: Iterator[bytes]) -> Iterator[bytes]:
    import zlib  # noqa: PLC0415

    crc = done = 0
    for chunk in chunks:
        done += len(chunk)
        if done > entry.size:
            break
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if done != entry.size or crc != entry.crc:
        raise _damaged(f"member '{shown(entry.name)}' has another size or checksum than it should")


def _seconds(date: int, time: int) -> int:
    """Convert a time of MS-DOS, taken as UTC, to seconds since 1970; 0 for an invalid one."""
    year, month, day = (date >> 9) + 1980, date >> 5 & 15, date & 31
    if not (1 <= month <= 12 and day):
        return 0
    # The Julian day number, with years that begin in March.
    before = month < 3
    years, months = year + 4800 - before, month - 3 + 12 * before
    days = day + (153 * months + 2) // 5 + 365 * years + years // 4 - years // 100 + years // 400 - 32045
    return (days - 2_440_588) * 86400 + (time >> 11) * 3600 + (time >> 5 & 63) * 60 + (time & 31) * 2
