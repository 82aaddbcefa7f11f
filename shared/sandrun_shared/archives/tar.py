"""Read tar archives: v7, ustar, pax (POSIX.1-2008, pax) and GNU, checking each header strictly (tar(5)).

The standard library's reader treats a damaged header after the first as the end of the archive; here it is an
error that says where. As with GNU tar, the end may lack its empty blocks, and anything may follow them except
another archive, whose files would be lost.
"""

from __future__ import annotations

from sandrun_shared.archives import sparse
from sandrun_shared.archives.members import (
    CHUNK_BYTES,
    FILE,
    FOLDER,
    HARD_LINK,
    SYMLINK,
    ArchiveError,
    Member,
    NotThisKind,
    of_no_use,
)
from sandrun_shared.archives.names import shown
from sandrun_shared.archives.sparse import SparseError
from sandrun_shared.archives.streams import Feed, TrailingBytes

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
MAX_EXTENDED = 64 << 10  # bytes of the extended headers before one member
_ZEROS = bytes(BLOCK)
_REGULAR = (b"0", b"\0", b"7")  # 7: contiguous, treated as regular
_EXTENDED = (b"x", b"g", b"X", b"L", b"K")
_OTHERS = {b"3": "a device", b"4": "a device", b"6": "a FIFO"}


def number(field: bytes) -> int | None:
    """Parse a number of a header: octal, or GNU's base 256 for large or negative ones; None if neither."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big", signed=False) - (field[0] == 0xFF) * (1 << 8 * len(field) - 8)
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def members(pieces: Iterator[bytes]) -> Iterator[Member]:
    """Iterate over the members of the unpacked archive, given in pieces. Raises ArchiveError."""
    return _Tar(pieces).members()


class _Extended:
    """The records of extended headers about the member that follows."""

    def __init__(self, records: dict[bytes, bytes]) -> None:
        self.records = records
        self.long_name: bytes | None = None
        self.long_target: bytes | None = None
        self.sparse_numbers: list[bytes] = []  # format 0.0 repeats its records
        self.size = 0

    def get(self, key: bytes) -> bytes | None:
        """Look up a record; an empty one cancels an earlier one."""
        return self.records.get(key) or None


class _Tar:
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._feed = Feed(pieces)
        self._of_all: dict[bytes, bytes] = {}  # records of pax global headers
        self._at = 0  # offset of the current header
        self._last = ""  # name of the previous member
        self._left = 0  # unread bytes of the member's data in the archive

    def members(self) -> Iterator[Member]:
        while True:
            self._at = self._feed.offset
            extended = _Extended(dict(self._of_all))
            header = self._header()
            while header is not None and header[156:157] in _EXTENDED:
                self._extend(extended, header)
                is_global = header[156:157] == b"g"
                header = self._header()
                if header is None and not is_global:
                    raise self._damaged("its extended header belongs to no member")
            if header is None:
                self._finish()
                return
            try:
                member = self._member(header, extended)
            except SparseError as error:
                raise self._damaged(str(error)) from None
            self._last = shown(member.name)
            yield member
            while self._left:
                self._some(CHUNK_BYTES)
            self._skip_padding()

    def _damaged(self, what: str) -> ArchiveError:
        after = f", after member '{self._last}'" if self._last else ""
        return ArchiveError(f"The archive is damaged at byte {self._at}{after}: {what}.")

    def _cut(self) -> ArchiveError:
        after = f", in or after member '{self._last}'" if self._last else ""
        return ArchiveError(f"The archive is truncated at byte {self._feed.offset}{after}.")

    def _header(self) -> bytes | None:
        """Read the next header, None at the end of the archive."""
        block = self._feed.upto(BLOCK)
        if not block.strip(b"\0"):
            if self._feed.offset < BLOCK:
                raise NotThisKind("The upload is not a tar archive.")
            return None
        if len(block) < BLOCK:
            raise self._cut()
        if not _is_header(block):
            if self._feed.offset == BLOCK:
                raise NotThisKind("The upload is not a tar archive.")
            raise self._damaged("its header has a wrong checksum")
        return block

    def _number(self, field: bytes, what: str) -> int:
        value = number(field)
        if value is None:
            raise self._damaged(f"its {what} is no octal number")
        return value

    def _size(self, header: bytes) -> int:
        size = self._number(header[124:136], "size")
        if size < 0:
            raise self._damaged("its size is negative")
        return size

    def _some(self, size: int) -> bytes:
        """Read some of the member's data, at least one byte."""
        data = self._feed.some(min(size, self._left))
        if not data:
            raise self._cut()
        self._left -= len(data)
        return data

    def _block(self) -> bytes:
        """Read the next block of the member's data."""
        block = self._feed.upto(BLOCK)
        if len(block) < BLOCK:
            raise self._cut()
        return block

    def _skip_padding(self) -> None:
        padding = -self._feed.offset % BLOCK
        if len(self._feed.upto(padding) if padding else b"") < padding:
            raise self._cut()

    def _extend(self, extended: _Extended, header: bytes) -> None:
        size = self._size(header)
        extended.size += BLOCK + size
        if extended.size > MAX_EXTENDED:
            raise ArchiveError(
                f"The archive has an extended header above {MAX_EXTENDED >> 10} KiB at byte {self._at}."
            )
        data = self._feed.upto(size) if size else b""
        if len(data) < size:
            raise self._cut()
        self._skip_padding()
        kind = header[156:157]
        if kind == b"L":
            extended.long_name = data.partition(b"\0")[0]
        elif kind == b"K":
            extended.long_target = data.partition(b"\0")[0]
        else:
            for key, value in self._records(data):
                extended.records[key] = value
                if kind == b"g":
                    self._of_all[key] = value
                if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                    extended.sparse_numbers.append(value)

    def _records(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        at = 0
        while at < len(data) and data[at]:
            space = data.find(b" ", at, at + sparse.MAX_DIGITS)
            digits = data[at : max(space, at)]
            end = at + int(digits) if digits.isdigit() else 0
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if end <= space or data[end - 1 : end] != b"\n" or not key or not equals:
                raise self._damaged("its extended header has a record of a wrong length")
            yield key, value
            at = end
        if data[at:].strip(b"\0"):
            raise self._damaged("its extended header has bytes behind its records")

    def _member(self, header: bytes, extended: _Extended) -> Member:
        self._left = 0
        stored = self._size(header)
        if (text := extended.get(b"size")) is not None:
            stored = sparse.decimal(text)
        name = extended.get(b"GNU.sparse.name") or extended.get(b"path") or extended.long_name
        name = name or _name_in(header)
        target = extended.get(b"linkpath") or extended.long_target or header[157:257].partition(b"\0")[0]
        if not name:
            raise self._damaged("its header has no name")
        mode = self._number(header[100:108], "mode") & 0o7777
        mtime: float = self._number(header[136:148], "time")
        if (text := extended.get(b"mtime")) is not None:
            mtime = _seconds(text)
        kind = header[156:157]
        if kind == b"5" or (kind == b"\0" and name.endswith(b"/")):  # v7 marks a folder only in this way
            return Member(name, FOLDER, mode, mtime)
        if kind == b"2":
            return Member(name, SYMLINK, mode, mtime, target=target)
        if kind == b"1":
            return Member(name, HARD_LINK, mode, mtime, target=target)
        if kind not in _REGULAR and kind != b"S":
            raise of_no_use(name, _OTHERS.get(kind, "of an unknown type"))
        return self._file(header, extended, Member(name, FILE, mode, mtime, size=stored))

    def _file(self, header: bytes, extended: _Extended, member: Member) -> Member:
        stored = member.size
        if header[156:157] == b"S":
            size = self._number(header[483:495], "size")
            extents = self._old_extents(header)
        else:
            sized = extended.get(b"GNU.sparse.realsize") or extended.get(b"GNU.sparse.size")
            if sized is None:
                self._left = stored
                member.chunks = iter(self._plain, b"")
                return member
            size = sparse.decimal(sized)
            before = self._feed.offset
            extents = self._pax_extents(extended)
            stored -= self._feed.offset - before
        sparse.check(extents, stored, size)
        self._left, member.size = stored, size
        member.chunks = sparse.chunks(extents, size, self._some)
        return member

    def _plain(self) -> bytes:
        return self._some(CHUNK_BYTES) if self._left else b""

    def _old_extents(self, header: bytes) -> sparse.Extents:
        extents = sparse.of_old_entries(header[386:482], 4, number)
        more = header[482]
        while more:
            block = self._block()
            extents += sparse.of_old_entries(block, 21, number)
            if len(extents) > sparse.MAX_EXTENTS:
                raise SparseError("its map of holes is too long")
            more = block[504]
        return extents

    def _pax_extents(self, extended: _Extended) -> sparse.Extents:
        version = extended.get(b"GNU.sparse.major"), extended.get(b"GNU.sparse.minor")
        if version == (b"1", b"0"):
            return sparse.of_data(self._block)
        if version[0] not in (None, b"0"):
            raise SparseError("its map of holes has an unknown format")
        if (listed := extended.get(b"GNU.sparse.map")) is not None:
            return sparse.of_numbers(listed.split(b","))
        return sparse.of_numbers(extended.sparse_numbers)

    def _finish(self) -> None:
        """Read to the end, to find a truncated archive or a second one."""
        looked = False
        try:
            while True:
                self._at = self._feed.offset
                data = self._feed.upto(CHUNK_BYTES)
                zeros = len(data) - len(data.lstrip(b"\0"))
                if not data:
                    return
                if looked or zeros == len(data):
                    continue
                looked = True
                start = zeros - zeros % BLOCK
                block = data[start : start + BLOCK]
                if len(block) == BLOCK and _is_header(block):
                    self._at += start
                    raise self._damaged("behind its end another archive begins")
        except TrailingBytes:
            pass  # ignored after the archive's end, as by gzip(1)


def _is_header(block: bytes) -> bool:
    """Whether the checksum matches; some old writers summed signed bytes."""
    said = number(block[148:156])
    plain = block[:148] + b" " * 8 + block[156:]
    total = sum(plain)
    return said is not None and (said == total or said == total - 256 * sum(byte > 127 for byte in plain))


def _name_in(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and prefix:
        return prefix + b"/" + name
    return name


def _seconds(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
