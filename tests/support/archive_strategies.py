"""Hypothesis strategies for small archives in every dialect: valid, hostile and damaged."""

import bz2
import gzip
import io
import itertools
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from sandrun_shared.jobs import UploadKind
from support import tar_files
from support.tar_files import END, Entry

COMPRESSED: dict[UploadKind, Callable[[bytes], bytes]] = {
    UploadKind.tar: bytes,
    UploadKind.tar_gz: lambda data: gzip.compress(data, 1, mtime=0),
    UploadKind.tar_bz2: lambda data: bz2.compress(data, 1),
    UploadKind.tar_xz: lambda data: lzma.compress(data, preset=0),
}
FILE, FOLDER, SYMLINK, HARD_LINK = b"0", b"5", b"2", b"1"

_words = st.sampled_from(
    [
        "a",
        "b",
        "c",
        "main.py",
        "job.json",
        "x y",
        "-",
        "né",
        "日本",
        "back\\slash",
        "n" * 60,
        "m" * 101,
        "l" * 255,
    ]
)
_honest_words = _words | st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cc", "Cs"], codec="utf-8"),
    min_size=1,
    max_size=6,
).filter(lambda word: word not in (".", ".."))
_hostile_words = st.sampled_from(
    [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "../up",
        "o" * 256,
        "d/" * 65 + "x",
        ("p" * 120 + "/") * 9,
        "t\t",
        "\x7f",
        "a\0b",
    ]
)
_contents = st.sampled_from(
    [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(60), b"{}", b"x" * 511, b"y" * 512, bytes(1500)]
)
_contents |= st.binary(max_size=600)


@dataclass(frozen=True)
class Upload:
    """An archive and, if it is valid, its files and links."""

    kind: UploadKind
    data: bytes
    files: dict[str, bytes] | None = None
    links: dict[str, str] | None = None


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """Entries that can all be unpacked: unique names, links that stay inside, hard links to earlier files."""
    entries: list[Entry] = []
    taken: set[str] = set()
    folders: set[str] = set()
    for _ in range(draw(st.integers(0, 6))):
        parts = draw(st.lists(_honest_words, min_size=1, max_size=3))
        path = "/".join(parts)
        above = {"/".join(parts[:end]) for end in range(1, len(parts))}
        if path in taken | folders or above & taken or len(path.encode()) > 1024:
            continue
        kind = draw(st.sampled_from([FILE, FILE, FILE, FOLDER, SYMLINK, HARD_LINK]))
        before = [entry for entry in entries if entry.kind == FILE]
        if kind == HARD_LINK and not before:
            kind = FILE
        entry = Entry(path.encode(), kind, mode=draw(st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0])))
        if kind == FILE:
            entry = replace(entry, data=draw(_contents))
        elif kind == SYMLINK:
            entry = replace(
                entry, target=draw(st.sampled_from([b"a", b"main.py", b"x" * 120, "né/b".encode()]))
            )
        elif kind == HARD_LINK:
            entry = replace(entry, target=draw(st.sampled_from(before)).name)
        entries.append(entry)
        (folders if kind == FOLDER else taken).add(path)
        folders |= above
    return entries


def _result(entries: list[Entry]) -> tuple[dict[str, bytes], dict[str, str]]:
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    for entry in entries:
        name = entry.name.decode()
        if entry.kind == FILE:
            files[name] = entry.data
        elif entry.kind == HARD_LINK:
            files[name] = files[entry.target.decode()]
        elif entry.kind == SYMLINK:
            links[name] = entry.target.decode()
    return files, links


@st.composite
def tars(draw: st.DrawFn, entries: list[Entry]) -> bytes:
    """Write the entries as a tar archive, each in some dialect, with some writer's end."""
    packed = b""
    if draw(st.booleans()):
        packed += tar_files.extended(b"g", tar_files.record(b"comment", b"0" * 40))
    for entry in entries:
        form = draw(st.sampled_from(tar_files.FORMS))
        if entry.kind == FILE and entry.data and draw(st.booleans()):
            extents = draw(_extents(entry.data))
            packed += tar_files.sparse(entry, extents, draw(st.sampled_from(_sparse_forms(entry))))
        else:
            packed += tar_files.member(entry, form)
    return packed + draw(
        st.sampled_from([END, END + bytes(8192), END + b"garbage", bytes(512), END + b"\n" * 999])
    )


def _sparse_forms(entry: Entry) -> tuple[str, ...]:
    """Select the dialects that have room for a name of that length."""
    return tar_files.SPARSE_FORMS if len(entry.name) <= 100 else ("0.1", "1.0")


@st.composite
def _extents(draw: st.DrawFn, data: bytes) -> list[tuple[int, int]]:
    """Choose extents that cover every byte other than zero, and perhaps more."""
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)) | {0, len(data)})
    pieces = [(start, end - start) for start, end in itertools.pairwise(cuts)]
    kept = [piece for piece in pieces if data[piece[0] : sum(piece)].strip(b"\0") or draw(st.booleans())]
    return [*kept, (len(data), 0)] if draw(st.booleans()) else kept


def by_tarfile(entries: list[Entry], form: int) -> bytes:
    """Write the entries with the standard library."""
    packed = io.BytesIO()
    with tarfile.open(
        fileobj=packed, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name.decode("utf-8", "surrogateescape"))
            info.type, info.mode, info.size = entry.kind, entry.mode, len(entry.data)
            info.linkname = entry.target.decode("utf-8", "surrogateescape")
            archive.addfile(info, io.BytesIO(entry.data))
    return packed.getvalue()


class Unseekable(io.RawIOBase):
    """A stream without seeking, for which a ZIP writer puts sizes after the data."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        self.data += memoryview(data)  # type: ignore[call-overload]
        return len(memoryview(data))  # type: ignore[call-overload]


@st.composite
def zips(draw: st.DrawFn, entries: list[Entry]) -> bytes:
    """Write the entries as a ZIP archive: stored or deflated, streamed or not, with ZIP64 or without."""
    streamed = draw(st.booleans())
    seekable, unseekable = io.BytesIO(), Unseekable()
    with zipfile.ZipFile(unseekable if streamed else seekable, "w") as archive:  # type: ignore[arg-type]
        for entry in entries:
            archive.NameToInfo.clear()  # or it warns of a name that comes twice
            info = zip_info(entry, unix=draw(st.booleans()) or entry.kind == SYMLINK)
            info.compress_type = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
            with archive.open(info, "w", force_zip64=draw(st.booleans())) as file:
                file.write(entry.target or entry.data)
    data = bytes(unseekable.data) if streamed else seekable.getvalue()
    return data + draw(st.sampled_from([b"", b"", b"\n", b"garbage" * 9]))


def zip_info(entry: Entry, *, unix: bool) -> zipfile.ZipInfo:
    """Make a member's attributes as a writer on Unix or on FAT does."""
    name = entry.name.decode("utf-8", "surrogateescape")
    info = zipfile.ZipInfo(name + "/" if entry.kind == FOLDER else name)
    info.create_system = 3 if unix else 0
    if unix:
        kind = {FOLDER: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}.get(entry.kind, stat.S_IFREG)
        info.external_attr = (kind | entry.mode) << 16
    return info


@st.composite
def compressed(draw: st.DrawFn, kind: UploadKind, data: bytes) -> bytes:
    """Compress a tar archive to one stream or several, with zeros between and anything after them."""
    if kind is UploadKind.tar:
        return data
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=3)) | {0, len(data)})
    packed = b""
    for start, end in itertools.pairwise(cuts):
        packed += COMPRESSED[kind](data[start:end]) + bytes(draw(st.sampled_from([0, 0, 4, 512])))
    return packed + draw(st.sampled_from([b"", b"", bytes(8), b"garbage", b"\x1f"]))


@st.composite
def honest(draw: st.DrawFn) -> Upload:
    """An archive that must be accepted, and the tree that it must unpack to."""
    entries = draw(trees())
    if draw(st.integers(0, 3)) == 0:
        entries = [entry for entry in entries if entry.kind != HARD_LINK]
        for_zip = [replace(entry, name=entry.name.replace(b"\\", b"_")) for entry in entries]
        names = [entry.name for entry in for_zip]
        if len(set(names)) == len(names):
            return Upload(UploadKind.zip, draw(zips(for_zip)), *_result(for_zip))
    kind = draw(st.sampled_from([*COMPRESSED]))
    form = draw(st.sampled_from([None, None, None, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    data = draw(tars(entries)) if form is None else by_tarfile(entries, form)
    return Upload(kind, draw(compressed(kind, data)), *_result(entries))


_hostile_entries = st.builds(
    Entry,
    st.lists(_words | _hostile_words, min_size=1, max_size=3).map(lambda words: "/".join(words).encode()),
    st.sampled_from([FILE, FILE, FOLDER, SYMLINK, HARD_LINK, b"\0", b"7", b"3", b"6", b"V", b"S"]),
    _contents,
    st.sampled_from(
        ["", "a", "main.py", "..", "../a", "a/..", "./a", "/etc", "a/../..", "q" * 1100, "\xff"]
    ).map(lambda text: text.encode("latin-1")),
    st.sampled_from([0o644, 0o755, 0, 0o7777]),
    st.sampled_from([0, 1_600_000_000, -5, 1 << 40]),
)
_FIELDS = {
    "size": (124, 136),
    "mode": (100, 108),
    "mtime": (136, 148),
    "kind": (156, 157),
    "prefix": (345, 500),
}
_VALUES = [
    b"",
    b"many",
    b"-1",
    b"0o17",
    b"1_7",
    b" 7 ",
    b"77777777777",
    b"\x80" + bytes(11),
    b"\xff" * 12,
    b"9",
    b"x",
    b"L",
]


@st.composite
def hostile(draw: st.DrawFn) -> Upload:
    """An archive in which anything may be wrong."""
    entries = draw(st.lists(_hostile_entries, max_size=5))
    if draw(st.integers(0, 2)) == 0:
        kept = [entry for entry in entries if entry.kind in (FILE, FOLDER, SYMLINK) and entry.name]
        return Upload(UploadKind.zip, _damaged(draw, draw(zips(kept))))
    kind = draw(st.sampled_from([*COMPRESSED]))
    data = _with_fields(draw, draw(tars(entries)))
    if draw(st.booleans()):
        data = _with_records(draw, data)
    if draw(st.booleans()):
        data = _damaged(draw, data)
    packed = draw(compressed(kind, data))
    return Upload(kind, _damaged(draw, packed) if draw(st.integers(0, 3)) == 0 else packed)


def _with_fields(draw: st.DrawFn, data: bytes) -> bytes:
    """Replace fields of headers, and correct the checksums."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) // tar_files.BLOCK - 1)) * tar_files.BLOCK
        start, end = _FIELDS[draw(st.sampled_from([*_FIELDS]))]
        value = draw(st.sampled_from(_VALUES) | st.binary(max_size=12))
        block = bytes(changed[at : at + tar_files.BLOCK])
        block = block[:start] + value[: end - start].ljust(end - start, b"\0") + block[end:]
        if block.strip(b"\0"):
            changed[at : at + tar_files.BLOCK] = tar_files.checked(block)
    return bytes(changed)


_KEYS = ["path", "linkpath", "size", "mtime", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.map"]
_KEYS += [
    "GNU.sparse.major",
    "GNU.sparse.minor",
    "GNU.sparse.name",
    "GNU.sparse.offset",
    "GNU.sparse.numbytes",
    "x",
]
_TEXTS = [
    "",
    "0",
    "1",
    "5",
    "1024",
    "many",
    "-1",
    "a",
    "main.py",
    "0,1",
    "0,1,2",
    "1e400",
    "nan",
    "9" * 30,
    "/",
    "../a",
]


def _with_records(draw: st.DrawFn, data: bytes) -> bytes:
    """Insert an extended header before one of the blocks."""
    at = draw(st.integers(0, len(data) // tar_files.BLOCK)) * tar_files.BLOCK
    pairs = draw(st.lists(st.tuples(st.sampled_from(_KEYS), st.sampled_from(_TEXTS)), min_size=1, max_size=4))
    records = b"".join(tar_files.record(key.encode(), text.encode()) for key, text in pairs)
    records = draw(
        st.sampled_from([records, b"0 " + records, b"99 x=y\n", records[:-1] + b"x", records + bytes(5)])
    )
    return (
        data[:at]
        + tar_files.extended(draw(st.sampled_from([b"x", b"g", b"X", b"L", b"K"])), records)
        + data[at:]
    )


def _damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Change, truncate, delete or insert bytes."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["change", "cut", "out", "in"]))
        if how == "change":
            data = data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
        elif how == "cut":
            data = data[:at]
        elif how == "out":
            data = data[:at] + data[at + draw(st.sampled_from([1, 30, 512, 600])) :]
        else:
            data = data[:at] + draw(st.binary(max_size=40)) + data[at:]
    return data
