"""Write tar archives byte by byte, in every dialect, and with any damage."""

from dataclasses import dataclass

BLOCK = 512
END = bytes(2 * BLOCK)
FORMS = ("v7", "ustar", "pax", "gnu")
SPARSE_FORMS = ("old", "0.0", "0.1", "1.0")
_MAGIC = {"v7": b"", "ustar": b"ustar\x0000", "pax": b"ustar\x0000", "gnu": b"ustar  \0"}


@dataclass(frozen=True)
class Entry:
    """A member: kind is its typeflag, data the bytes of a regular file."""

    name: bytes
    kind: bytes = b"0"
    data: bytes = b""
    target: bytes = b""
    mode: int = 0o644
    mtime: int = 1_600_000_000


def padded(data: bytes) -> bytes:
    """Pad data with zeros to a whole block."""
    return data + bytes(-len(data) % BLOCK)


def octal(value: int, size: int) -> bytes:
    """Encode a number of a header, in base 256 if octal cannot hold it."""
    if 0 <= value < 8 ** (size - 1):
        return b"%0*o\0" % (size - 1, value)
    return (b"\xff" if value < 0 else b"\x80") + (value % 256 ** (size - 1)).to_bytes(size - 1, "big")


def checked(block: bytes) -> bytes:
    """Set the correct checksum of a header."""
    total = sum(block[:148]) + 8 * 32 + sum(block[156:BLOCK])
    return block[:148] + b"%06o\0 " % total + block[156:]


def header(entry: Entry, stored: int, form: str, *, tail: bytes = b"", **fields: bytes) -> bytes:
    """Make one header; fields replace raw size, mode or mtime, tail replaces its end."""
    block = entry.name[:100].ljust(100, b"\0")
    block += fields.get("mode", octal(entry.mode, 8)).ljust(8, b"\0") + octal(0, 8) * 2
    block += fields.get("size", octal(stored, 12)).ljust(12, b"\0")
    block += fields.get("mtime", octal(entry.mtime, 12)).ljust(12, b"\0") + b" " * 8 + entry.kind
    block += entry.target[:100].ljust(100, b"\0")
    block += _MAGIC[form].ljust(BLOCK - len(block), b"\0")
    return checked(block[: BLOCK - len(tail)] + tail if tail else block)


def record(key: bytes, value: bytes) -> bytes:
    """Make a record of a pax header, which begins with its own length."""
    size = len(key) + len(value) + 3
    while size != len(text := b"%d %b=%b\n" % (size, key, value)):
        size = len(text)
    return text


def extended(kind: bytes, data: bytes, form: str = "pax") -> bytes:
    """Make an extended header: x or g with records, L or K with a long name."""
    return header(Entry(b"././@Extended", kind), len(data), form) + padded(data)


def member(entry: Entry, form: str = "pax") -> bytes:
    """Make a whole member; names too long for its dialect are written as by GNU tar or pax."""
    before = b""
    if form == "pax":
        records = [(b"path", entry.name)] if len(entry.name) > 100 else []
        records += [(b"linkpath", entry.target)] if len(entry.target) > 100 else []
        if records:
            before = extended(b"x", b"".join(record(*pair) for pair in records))
    else:
        before += extended(b"L", entry.name + b"\0", "gnu") if len(entry.name) > 100 else b""
        before += extended(b"K", entry.target + b"\0", "gnu") if len(entry.target) > 100 else b""
    size = len(entry.data) if entry.kind in (b"0", b"\0", b"7") else 0
    return before + header(entry, size, form) + padded(entry.data[:size])


def sparse(entry: Entry, extents: list[tuple[int, int]], form: str) -> bytes:
    """Make a sparse file, whose bytes outside the extents are zeros that are not stored."""
    stored = b"".join(entry.data[at : at + length] for at, length in extents)
    size = len(entry.data)
    numbers = [number for extent in extents for number in extent]
    if form == "old":
        return _sparse_old(entry, extents, stored)
    if form == "0.0":
        pairs = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(extents))]
        for at, length in extents:
            pairs += [(b"GNU.sparse.offset", b"%d" % at), (b"GNU.sparse.numbytes", b"%d" % length)]
    elif form == "0.1":
        pairs = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.name", entry.name)]
        pairs += [(b"GNU.sparse.map", b",".join(b"%d" % number for number in numbers))]
    else:
        pairs = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
        pairs += [(b"GNU.sparse.name", entry.name), (b"GNU.sparse.realsize", b"%d" % size)]
        stored = padded(b"".join(b"%d\n" % number for number in [len(extents), *numbers])) + stored
    hidden = entry.name if form == "0.0" else b"GNUSparseFile.0/name"
    before = extended(b"x", b"".join(record(*pair) for pair in pairs))
    named = Entry(hidden, b"0", mode=entry.mode, mtime=entry.mtime)
    return before + header(named, len(stored), "pax") + padded(stored)


def _sparse_old(entry: Entry, extents: list[tuple[int, int]], stored: bytes) -> bytes:
    entries = [octal(at, 12) + octal(length, 12) for at, length in extents]
    first, rest = entries[:4], entries[4:]
    tail = b"".join(first).ljust(96, b"\0") + bytes([bool(rest)]) + octal(len(entry.data), 12)
    named = Entry(entry.name, b"S", mode=entry.mode, mtime=entry.mtime)
    data = header(named, len(stored), "gnu", tail=tail.ljust(BLOCK - 386, b"\0"))
    while rest:
        some, rest = rest[:21], rest[21:]
        data += (b"".join(some).ljust(504, b"\0") + bytes([bool(rest)])).ljust(BLOCK, b"\0")
    return data + padded(stored)
