"""The check of an archive's table of contents, before its job is queued.

Nothing is unpacked here: the members are counted, named and measured while they stream by. The sandbox
unpacks later, within the job's own limits; this check says early and clearly what is wrong.
It blocks, so it runs in a thread, and is bounded in bytes, members, memory and time.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any, cast

from sandrun_api.contents import HEAD_BYTES, MANIFEST_ALONE, Bounds, Contents, Table
from sandrun_api.errors import ApiError
from sandrun_api.memfds import Memfd
from sandrun_api.paths import shown
from sandrun_shared.jobs import UploadKind

MAX_HEADER = 64 << 10  # bytes of one extended tar header, which tarfile reads whole
MAX_READ = 4 << 20  # bytes zipfile may ask for at once: its table of contents is one read
XZ_MEMORY = 96 << 20  # bytes; `xz -9` needs 65 MiB
PIECE = 64 << 10  # bytes

_SUFFIXES = (
    (".tar.gz", UploadKind.tar_gz),
    (".tgz", UploadKind.tar_gz),
    (".tar.bz2", UploadKind.tar_bz2),
    (".tbz2", UploadKind.tar_bz2),
    (".tar.xz", UploadKind.tar_xz),
    (".txz", UploadKind.tar_xz),
    (".tar", UploadKind.tar),
    (".zip", UploadKind.zip),
)
_MAGIC = {
    UploadKind.tar_gz: (b"\x1f\x8b\x08",),
    UploadKind.tar_bz2: (b"BZh",),
    UploadKind.tar_xz: (b"\xfd7zXZ\0",),
    UploadKind.zip: (b"PK\x03\x04", b"PK\x05\x06"),
}
# What the standard library raises on damaged input, documented or not.
_UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    MemoryError,
)
_HEADER_TYPES = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


def kind_of_name(name: str) -> UploadKind | None:
    """The kind of archive that a file's name promises, if any."""
    lowered = name.lower()
    return next((kind for suffix, kind in _SUFFIXES if lowered.endswith(suffix)), None)


def has_magic(kind: UploadKind, upload: Memfd) -> bool:
    """Whether the first bytes fit the kind of archive; the oldest tar format has no mark of its own."""
    if kind is UploadKind.tar:
        return upload.size >= tarfile.BLOCKSIZE
    return upload.read_at(0, 8).startswith(_MAGIC[kind])


def check(
    upload: Memfd, kind: UploadKind, bounds: Bounds, wanted: Mapping[str, int] = MANIFEST_ALONE
) -> Contents:
    """Read the whole archive once and say what it holds; wanted as for Table.

    Raises ApiError: 413 for what is too large, too many or too slow, 400 for anything else, with the
    member's name in the reason.
    """
    damaged = ApiError(400, f"The upload is named like a {kind.value} archive but cannot be read as one.")
    if not has_magic(kind, upload):
        raise damaged
    table = Table(bounds, wanted)
    try:
        with _Source(os.dup(upload.fileno())) as source:
            if kind is UploadKind.zip:
                _check_zip(source, table)
            else:
                _check_tar(source, kind, table, bounds)
    except _UNREADABLE:
        raise damaged from None
    return table.contents()


class _Source(io.FileIO):
    """The upload, read from its start, never much at once; its position is shared with nobody."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "rb")
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        """As FileIO.read; raises ApiError when a reader asks for a whole table that is too large."""
        if size is not None and size > MAX_READ:
            raise ApiError(413, f"The archive's table of contents has more than {MAX_READ >> 20} MiB.")
        return super().read(size) or b""


class _Unpacked:
    """A decompressed stream that ends in an error when it is too long or too slow."""

    def __init__(self, read: Callable[[int], bytes], table: Table, limit: int) -> None:
        self._read = read
        self._table = table
        self._left = limit

    def read(self, size: int) -> bytes:
        """At most size bytes."""
        self._table.tick()
        data = self._read(min(size, PIECE))
        self._left -= len(data)
        if self._left < 0:
            raise ApiError(413, "The archive unpacks to more than a job's files may take.")
        return data


class _Xz:
    """Reads xz streams with bounded memory, which lzma.LZMAFile cannot promise."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._decompressor = self._fresh()

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def read(self, size: int) -> bytes:
        """At most size bytes; b'' at the end of the last stream. Raises LZMAError, EOFError."""
        while True:
            data = b""
            if self._decompressor.eof:
                data = self._decompressor.unused_data.lstrip(b"\0") or self._source.read(PIECE).lstrip(b"\0")
                if not data:
                    return b""
                self._decompressor = self._fresh()
            elif self._decompressor.needs_input:
                data = self._source.read(PIECE)
                if not data:
                    raise EOFError
            unpacked = self._decompressor.decompress(data, size)
            if unpacked:
                return unpacked


class _Member(tarfile.TarInfo):
    """A header that refuses to make tarfile read a huge extension into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _HEADER_TYPES and not 0 <= self.size <= MAX_HEADER:
            raise ApiError(400, f"Member '{shown(self.name)}' has an extended header that is too large.")
        return super()._proc_member(archive)  # type: ignore[misc]


def _check_tar(source: _Source, kind: UploadKind, table: Table, bounds: Bounds) -> None:
    readers: dict[UploadKind, Callable[[], Any]] = {
        UploadKind.tar: lambda: source,
        UploadKind.tar_gz: lambda: gzip.GzipFile(fileobj=source),
        UploadKind.tar_bz2: lambda: bz2.BZ2File(source),
        UploadKind.tar_xz: lambda: _Xz(source),
    }
    # Every member costs up to a header, its extension and padding besides its bytes.
    limit = bounds.total_bytes + bounds.members * 4 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE
    unpacked = _Unpacked(readers[kind]().read, table, limit)
    with tarfile.open(fileobj=cast(IO[bytes], unpacked), mode="r|", tarinfo=_Member) as archive:
        for member in archive:
            table.count()
            archive.members.clear()  # type: ignore[attr-defined]  # else every member is kept
            _enter_tar_member(archive, member, table)
    # tarfile stops at the first empty block: only the end of the stream shows that it was not cut.
    while unpacked.read(PIECE):
        pass


def _enter_tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo, table: Table) -> None:
    if member.isdir():
        table.add_folder(member.name)
    elif member.issym():
        table.add_symlink(member.name, member.linkname)
    elif member.islnk():
        table.add_hard_link(member.name, member.linkname)
    elif member.isreg():
        table.grow(member.size, member.name)
        path = table.add_file(member.name)
        data = archive.extractfile(member)
        if data is not None:
            limit = table.limit_of(path)
            head = data.read(HEAD_BYTES if limit is None else limit + 1)
            table.keep_head(path, head)
            if limit is not None:
                table.keep(path, head)
    else:
        what = {tarfile.FIFOTYPE: "a FIFO", tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device"}
        raise ApiError(
            400,
            f"Member '{shown(member.name)}' is {what.get(member.type, 'of an unknown type')}; "
            "only files, folders and links are accepted.",
        )


def _check_zip(source: _Source, table: Table) -> None:
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        for _ in members:
            table.count()
        for info in members:
            _enter_zip_member(archive, info, table)


def _enter_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, table: Table) -> None:
    name = info.orig_filename
    if info.flag_bits & 0x41:  # traditional and strong encryption (APPNOTE 4.4.4)
        raise ApiError(400, f"Member '{shown(name)}' is encrypted.")
    mode = info.external_attr >> 16 if info.create_system == 3 else 0
    file_type = stat.S_IFMT(mode)
    if info.is_dir() or file_type == stat.S_IFDIR:
        table.add_folder(name)
        return
    if file_type not in (0, stat.S_IFREG, stat.S_IFLNK):
        what = "a FIFO" if file_type == stat.S_IFIFO else "a device or socket"
        raise ApiError(400, f"Member '{shown(name)}' is {what}; only files, folders and links are accepted.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ApiError(400, f"Member '{shown(name)}' is compressed in a way other than deflate.")
    limit = table.limit_of(name.removeprefix("./"))
    keep = HEAD_BYTES if limit is None else limit + 1
    if file_type == stat.S_IFLNK:
        keep = 4096
    head = b""
    with archive.open(info) as data:
        while piece := data.read(PIECE):
            table.tick()
            table.grow(len(piece), name)
            head += piece[: keep - len(head)]
    if file_type == stat.S_IFLNK:
        table.add_symlink(name, head.decode("utf-8", "surrogateescape"))
        return
    path = table.add_file(name)
    table.keep_head(path, head)
    if limit is not None and table.limit_of(path) == limit:
        table.keep(path, head)
