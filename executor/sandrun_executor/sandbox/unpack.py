"""Unpacks a client's upload into the work directory, as the job's own uid, inside the job's own sandbox.

The standard library reads archive headers and decompresses; every file is made by our own code, through
`beneath`. A bomb meets the job's own memory, size and inode limits.
"""

from __future__ import annotations

import errno
import os
import stat

from sandrun_executor.sandbox import beneath

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    import tarfile
    import zipfile
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    class Readable(Protocol):
        """What an archive member's bytes are read from."""

        def read(self, size: int, /) -> bytes: ...


# A bundle carries no times, and an archive's may be nonsense. The time must lie in the past, so that any
# write the job makes shows: 2020-01-01T00:00:00Z.
OLD_TIME_NS = 1_577_836_800 * 10**9
MAX_TIME_SECONDS = 2**32 - 1  # what every file system can store
CHUNK_BYTES = 1 << 20
WINDOW_BYTES = 64 << 10
HEADER_BYTES = beneath.MAX_PATH_BYTES + 1 + 13  # path NUL, up to 12 digits NUL

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_TAR_MODES = {"tar": "r|", "tar.gz": "r|gz", "tar.bz2": "r|bz2", "tar.xz": "r|xz"}
_TAR_MODULES = ("functools", "tarfile")
_MODULES = {  # encodings.cp437: of names in a zip that are not UTF-8
    "zip": ("calendar", "encodings.cp437", "zipfile"),
    "tar": _TAR_MODULES,
    "tar.gz": (*_TAR_MODULES, "zlib"),
    "tar.bz2": (*_TAR_MODULES, "bz2"),
    "tar.xz": (*_TAR_MODULES, "lzma"),
}


class UnpackError(Exception):
    """The upload cannot be unpacked; the text is for the client, disk_full says that a limit was met."""

    def __init__(self, text: str, *, disk_full: bool = False) -> None:
        super().__init__(text)
        self.disk_full = disk_full


def _shown(path: bytes) -> str:
    return ascii(path[:100].decode("utf-8", "backslashreplace"))


def clean_path(name: bytes) -> bytes:
    """A member's name as a plain relative path, empty for the work directory itself. Raises UnpackError."""
    if name.startswith(b"/") or b"\0" in name or not name:
        raise UnpackError(f"the archive has a name that is absolute or empty: {_shown(name)}")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UnpackError(f"the archive has a name that leaves the work directory: {_shown(name)}")
    path = b"/".join(parts)
    if (
        len(parts) > beneath.MAX_DEPTH
        or len(path) > beneath.MAX_PATH_BYTES
        or any(len(part) > beneath.MAX_NAME_BYTES for part in parts)
    ):
        raise UnpackError(f"the archive has a name that is too long: {_shown(name)}")
    return path


def _clean_target(path: bytes, target: bytes) -> bytes:
    """A link's target if it cannot leave the work directory. Raises UnpackError.

    '..' may stand at the start only, where the folders it climbs out of are real: behind a name it could
    climb out of another link's target, which counting names does not see.
    """
    refused = UnpackError(f"the archive has a link that leaves the work directory: {_shown(path)}")
    if not target or target.startswith(b"/") or b"\0" in target or len(target) > beneath.MAX_PATH_BYTES:
        raise refused
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    ups = 0
    while ups < len(parts) and parts[ups] == b"..":
        ups += 1
    if ups > path.count(b"/") or b".." in parts[ups:]:
        raise refused
    return target


def _time_ns(seconds: float) -> int:
    # A pax header may say nan or 1e400; 0 is what reproducible archives and no archive at all say.
    if not 0 < seconds <= MAX_TIME_SECONDS:
        return OLD_TIME_NS
    return int(seconds * 10**9)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


class _Tree:
    """What has been made so far; one method for each kind of member."""

    def __init__(self, work_fd: int, max_entries: int, max_bytes: int) -> None:
        self.work_fd = work_fd
        self.entries_left = max_entries
        self.bytes_left = max_bytes
        self.made: dict[bytes, tuple[int, int]] = {}  # path: mtime in ns, size
        self.links: dict[bytes, bytes] = {}  # path: target; made last, so that nothing goes through them

    def _count(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise UnpackError("the upload unpacks to more than the disk limit", disk_full=True)

    def _admit(self, name: bytes) -> bytes:
        self.entries_left -= 1
        if self.entries_left < 0:
            raise UnpackError("the upload has more entries than the limit", disk_full=True)
        return clean_path(name)

    def _remove(self, path: bytes) -> None:
        folder = beneath.open_folder(self.work_fd, os.path.dirname(path))
        try:
            os.unlink(os.path.basename(path), dir_fd=folder)
        finally:
            os.close(folder)

    def new_file(self, name: bytes, mode: int) -> tuple[bytes, int]:
        """Makes an empty file and opens it for writing; an earlier one of that name goes. Raises OSError."""
        path = self._admit(name)
        if not path:
            raise UnpackError("the archive has a file without a name")
        mode = mode & 0o777 | 0o600
        self.links.pop(path, None)
        try:
            return path, beneath.open_beneath(self.work_fd, path, _NEW_FILE, mode)
        except FileNotFoundError:
            beneath.make_parents(self.work_fd, path)
        except FileExistsError:
            self._remove(path)
            self.made.pop(path, None)
        return path, beneath.open_beneath(self.work_fd, path, _NEW_FILE, mode)

    def seal(self, path: bytes, fd: int, size: int, mtime_ns: int) -> None:
        """Sets the time of a file whose bytes are written, and remembers it for the snapshot."""
        os.utime(fd, ns=(mtime_ns, mtime_ns))
        self.made[path] = (mtime_ns, size)

    def add_file(self, name: bytes, mode: int, mtime_ns: int, chunks: Iterator[bytes]) -> None:
        path, fd = self.new_file(name, mode)
        try:
            size = 0
            for chunk in chunks:
                self._count(len(chunk))
                size += len(chunk)
                _write_all(fd, chunk)
            self.seal(path, fd, size, mtime_ns)
        finally:
            os.close(fd)

    def add_range(self, name: bytes, upload_fd: int, offset: int, size: int, held: memoryview) -> None:
        """A file that is `size` bytes of the upload: `held` has the first, the kernel copies the rest."""
        path, fd = self.new_file(name, 0o644)
        try:
            self._count(size)
            if held:
                _write_all(fd, held)
            done = len(held)
            while done < size:
                count = os.sendfile(fd, upload_fd, offset + done, size - done)
                if count == 0:
                    raise UnpackError("the upload is cut")
                done += count
            self.seal(path, fd, size, OLD_TIME_NS)
        finally:
            os.close(fd)

    def add_copy(self, name: bytes, source: bytes, mode: int, mtime_ns: int) -> None:
        """A hard link, as a copy of an earlier file of ours: two names never share bytes."""
        path = clean_path(source)
        if path not in self.made or path in self.links or path == clean_path(name):
            raise UnpackError(
                f"the archive has a hard link to something else than an earlier file: {_shown(name)}"
            )
        source_fd = beneath.open_beneath(self.work_fd, path, _READ_FILE)
        try:
            self.add_file(name, mode, mtime_ns, iter(lambda: os.read(source_fd, CHUNK_BYTES), b""))
        finally:
            os.close(source_fd)

    def add_folder(self, name: bytes, mode: int) -> None:
        path = self._admit(name)
        self.links.pop(path, None)
        if not path:
            return  # the work directory keeps the mode it has
        os.close(beneath.make_folders(self.work_fd, path))
        fd = beneath.open_beneath(self.work_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fchmod(fd, mode & 0o777 | 0o700)
        finally:
            os.close(fd)

    def add_link(self, name: bytes, target: bytes) -> None:
        path = self._admit(name)
        if not path:
            raise UnpackError("the archive has a link without a name")
        self.links.pop(path, None)
        self.links[path] = _clean_target(path, target)

    def finish(self) -> bytes:
        """Makes the links and returns the snapshot. Raises OSError, UnpackError."""
        for path, target in self.links.items():
            if self.made.pop(path, None):
                self._remove(path)
            folder = beneath.make_folders(self.work_fd, os.path.dirname(path))
            try:
                os.symlink(target, os.path.basename(path), dir_fd=folder)
            finally:
                os.close(folder)
        return b"".join([b"%b\0%d\0%d\0" % (path, *state) for path, state in self.made.items()])


def _unpack_bundle(tree: _Tree, upload_fd: int) -> None:
    # A window over the upload: a small bundle costs one read and four calls for each file.
    total = os.fstat(upload_fd).st_size
    offset = start = 0
    window = b""
    while offset < total:
        if offset + HEADER_BYTES > start + len(window) and start + len(window) < total:
            start, window = offset, os.pread(upload_fd, WINDOW_BYTES, offset)
        at = offset - start
        name_end = window.find(b"\0", at, at + HEADER_BYTES)
        size_end = window.find(b"\0", name_end + 1, at + HEADER_BYTES)
        digits = window[name_end + 1 : size_end]
        if name_end < 0 or size_end < 0 or not digits.isdigit() or len(digits) > 12:
            raise UnpackError("the upload is not a bundle of files")
        size = int(digits)
        body = size_end + 1
        offset = start + body
        if size > total - offset:
            raise UnpackError("the upload is cut")
        tree.add_range(window[at:name_end], upload_fd, offset, size, memoryview(window)[body : body + size])
        offset += size


def _chunks(source: Readable) -> Iterator[bytes]:
    while True:
        chunk = _guarded(source.read, CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _guarded(call: Callable[..., Any], *args: Any) -> Any:
    """Calls into an archive library; whatever it says of hostile bytes, OSError too, is one refusal."""
    try:
        return call(*args)
    except (MemoryError, UnpackError):
        raise
    except Exception as error:
        # RecursionError, RuntimeError (a password), NotImplementedError, zlib.error, struct.error and kin.
        raise UnpackError(f"the archive cannot be read: {ascii(str(error))[:200]}") from error


def _encoded(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UnpackError(f"the archive has a name that is not text: {ascii(name)[:100]}") from error


def _unpack_tar(tree: _Tree, upload_fd: int, mode: str) -> None:
    import tarfile  # noqa: PLC0415
    from functools import partial  # noqa: PLC0415

    with os.fdopen(os.dup(upload_fd), "rb") as source:
        source.seek(0)
        options = {"fileobj": source, "mode": mode, "encoding": "utf-8", "errors": "surrogateescape"}
        archive: tarfile.TarFile = _guarded(partial(tarfile.open, **options))
        while True:
            member: tarfile.TarInfo | None = _guarded(archive.next)
            if member is None:
                return
            archive.members = []  # type: ignore[attr-defined]  # it would keep every header
            _add_tar_member(tree, archive, member)


def _add_tar_member(tree: _Tree, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    name = _encoded(member.name)
    mtime_ns = _time_ns(member.mtime)
    if member.isreg():
        tree.add_file(name, member.mode, mtime_ns, _chunks(_guarded(archive.extractfile, member)))
    elif member.isdir():
        tree.add_folder(name, member.mode)
    elif member.issym():
        tree.add_link(name, _encoded(member.linkname))
    elif member.islnk():
        tree.add_copy(name, _encoded(member.linkname), member.mode, mtime_ns)
    else:
        raise UnpackError(f"the archive has an entry that is no file, folder or link: {_shown(name)}")


def _unpack_zip(tree: _Tree, upload_fd: int) -> None:
    import zipfile  # noqa: PLC0415

    with os.fdopen(os.dup(upload_fd), "rb") as source:
        archive: zipfile.ZipFile = _guarded(zipfile.ZipFile, source)
        for member in archive.infolist():
            _add_zip_member(tree, archive, member)


def _zip_time_ns(member: zipfile.ZipInfo) -> int:
    import calendar  # noqa: PLC0415

    try:
        return _time_ns(calendar.timegm((*member.date_time, 0, 0, 0)))
    except ValueError:
        return OLD_TIME_NS


def _add_zip_member(tree: _Tree, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    name = _encoded(member.filename)
    mode = member.external_attr >> 16 if member.create_system == 3 else 0  # 3: the maker was a Unix
    kind = stat.S_IFMT(mode)
    if member.is_dir() and kind in (0, stat.S_IFDIR):
        tree.add_folder(name, mode or 0o755)
        return
    if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
        raise UnpackError(f"the archive has an entry that is no file, folder or link: {_shown(name)}")
    with _guarded(archive.open, member) as source:
        if kind == stat.S_IFLNK:
            tree.add_link(name, _guarded(source.read, beneath.MAX_PATH_BYTES + 1))
        else:
            tree.add_file(name, mode or 0o644, _zip_time_ns(member), _chunks(source))


def load(kind: str) -> None:
    """Import all that unpacking an archive of this kind takes, while the work directory is still empty."""
    for name in _MODULES.get(kind, ()):
        __import__(name)


def unpack(
    kind: str, upload_fd: int, work_fd: int, *, max_entries: int = 20_000, max_bytes: int = 1 << 40
) -> bytes:
    """Unpacks the upload into the directory work_fd and returns the snapshot of the regular files made.

    The snapshot is `path NUL mtime_ns NUL size NUL` for each file, numbers in decimal. kind is a value of
    `sandrun_shared.jobs.UploadKind`; max_bytes counts what is written, replaced files too.
    Raises UnpackError; what was made until then stays.
    """
    tree = _Tree(work_fd, max_entries, max_bytes)
    try:
        if kind == "bundle":
            _unpack_bundle(tree, upload_fd)
        elif kind == "zip":
            _unpack_zip(tree, upload_fd)
        elif kind in _TAR_MODES:
            _unpack_tar(tree, upload_fd, _TAR_MODES[kind])
        else:
            raise UnpackError(f"an upload cannot be a {kind!r}")
        return tree.finish()
    except OSError as error:
        if error.errno in _FULL:
            raise UnpackError("the upload does not fit on the disk", disk_full=True) from error
        raise UnpackError(f"the upload cannot be unpacked: {error.strerror}") from error
