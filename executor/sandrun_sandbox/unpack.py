"""Unpack a client's upload into the work directory, with the job's uid, inside the job's sandbox.

`sandrun_shared.archives` reads archives, as it did for the api before the job was queued. Every file is
created here, through `beneath`. A bomb runs into the job's own limits of memory, size and inodes.
"""

from __future__ import annotations

import errno
import os

from sandrun_sandbox import beneath
from sandrun_shared.archives import members, names, reader

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandrun_shared.archives.members import Member

# A bundle has no times, and an archive's may be invalid. The default must lie in the past, so that every
# write of the job changes it: 2020-01-01T00:00:00Z.
OLD_TIME_NS = 1_577_836_800 * 10**9
MAX_ENTRIES = 1 << 20  # the operator's limit, which the api enforces, is far lower
MAX_TIME_SECONDS = 2**32 - 1  # what every file system can store
CHUNK_BYTES = 1 << 20
WINDOW_BYTES = 64 << 10
HEADER_BYTES = names.MAX_PATH + 1 + 13  # path NUL, up to 12 digits NUL

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_PROGRAM = (b"#!", b"\x7fELF")  # the beginnings of files that the kernel can execute (execve(2))
_MODULES = {  # modules that the reader imports; encodings.cp437 for zip names that are not UTF-8
    "zip": ("encodings.cp437", "zlib"),
    "tar.gz": ("zlib",),
    "tar.bz2": ("_bz2",),
    "tar.xz": ("_lzma",),
}


class UnpackError(Exception):
    """The upload cannot be unpacked; the text is for the client; disk_full: a limit was reached."""

    def __init__(self, text: str, *, disk_full: bool = False) -> None:
        super().__init__(text)
        self.disk_full = disk_full


def clean_path(name: bytes) -> bytes:
    """Clean a member's name to a plain relative path, empty for the work directory. Raises UnpackError."""
    try:
        return names.clean(name)
    except names.PathError as error:
        raise _refused(name, str(error)) from None


def _refused(name: bytes, what: str) -> UnpackError:
    return UnpackError(f"member '{names.shown(name)}' {what}")


def _mode_of(said: int | None, head: bytes | memoryview) -> int:
    """Choose a file's mode; if the upload has none, a file that looks executable is."""
    if said is not None:
        return said
    return 0o755 if bytes(head[:4]).startswith(_PROGRAM) else 0o644


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
    """The tree made so far; one method for each kind of member."""

    def __init__(self, work_fd: int, max_entries: int, max_bytes: int) -> None:
        self.work_fd = work_fd
        self.entries_left = max_entries
        self.bytes_left = max_bytes
        self.made: dict[bytes, tuple[int, int]] = {}  # path: mtime in ns, size
        self.links: dict[bytes, bytes] = {}  # path: target; made last, so that no path leads through them

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
        """Create an empty file for writing, replacing an earlier one of that name. Raises OSError."""
        path = self._admit(name)
        if not path or names.names_folder(name):
            raise _refused(name, "is a file with the name of a folder")
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
        """Set the time of a written file, and record it for the snapshot."""
        os.utime(fd, ns=(mtime_ns, mtime_ns))
        self.made[path] = (mtime_ns, size)

    def add_file(self, name: bytes, mode: int | None, mtime_ns: int, chunks: Iterator[bytes]) -> None:
        chunk = next(chunks, b"")
        path, fd = self.new_file(name, _mode_of(mode, chunk))
        try:
            size = 0
            while chunk:
                self._count(len(chunk))
                size += len(chunk)
                _write_all(fd, chunk)
                chunk = next(chunks, b"")
            self.seal(path, fd, size, mtime_ns)
        finally:
            os.close(fd)

    def add_range(self, name: bytes, upload_fd: int, offset: int, size: int, held: memoryview) -> None:
        """Add a file of `size` bytes of the upload: `held` has the first, the kernel copies the rest."""
        head = held or (os.pread(upload_fd, 4, offset) if size else b"")
        path, fd = self.new_file(name, _mode_of(None, head))
        try:
            self._count(size)
            if held:
                _write_all(fd, held)
            done = len(held)
            while done < size:
                count = os.sendfile(fd, upload_fd, offset + done, size - done)
                if count == 0:
                    raise UnpackError("the upload is truncated")
                done += count
            self.seal(path, fd, size, OLD_TIME_NS)
        finally:
            os.close(fd)

    def add_copy(self, name: bytes, source: bytes, mode: int | None, mtime_ns: int) -> None:
        """Add a hard link as a copy of an earlier file, so that two names never share bytes."""
        path = clean_path(source)
        if path not in self.made or path in self.links or path == clean_path(name):
            raise _refused(name, f"is a hard link to '{names.shown(source)}', which is no earlier file")
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
        if not path or names.names_folder(name):
            raise _refused(name, "is a link with the name of a folder")
        if not names.stays_inside(path, target):
            raise _refused(name, f"is a link out of the upload: '{names.shown(target)}'")
        self.links.pop(path, None)
        self.links[path] = target

    def make_links(self) -> None:
        """Make the links. Raises OSError, UnpackError."""
        for path, target in self.links.items():
            if self.made.pop(path, None):
                self._remove(path)
            folder = beneath.make_folders(self.work_fd, os.path.dirname(path))
            try:
                os.symlink(target, os.path.basename(path), dir_fd=folder)
            finally:
                os.close(folder)

    def make_root(self, entrypoint: bytes) -> None:
        """Moves what is in the only folder at the top out of it, if the entrypoint is only there.

        Raises OSError, UnpackError.
        """
        found = {*self.made, *self.links}
        tops = [os.fsencode(name) for name in os.listdir(self.work_fd)]
        top = names.root_of(clean_path(entrypoint), found, tops)
        if not top:
            return
        folder = beneath.open_beneath(self.work_fd, top, os.O_RDONLY | os.O_DIRECTORY)
        try:
            inside = [os.fsencode(name) for name in os.listdir(folder)]
            away = next(name for number in range(len(inside) + 1) if (name := b".%d" % number) not in inside)
            os.rename(top, away, src_dir_fd=self.work_fd, dst_dir_fd=self.work_fd)  # a child may be called so
            for name in inside:
                if name != names.NO_CONTENT:
                    os.rename(name, name, src_dir_fd=folder, dst_dir_fd=self.work_fd)
            if names.NO_CONTENT not in inside:
                os.rmdir(away, dir_fd=self.work_fd)
        finally:
            os.close(folder)
        length = len(top) + 1
        self.made = {path[length:]: state for path, state in self.made.items() if path.startswith(top + b"/")}

    def snapshot(self) -> bytes:
        """What was made."""
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
            raise UnpackError("the upload is truncated")
        tree.add_range(window[at:name_end], upload_fd, offset, size, memoryview(window)[body : body + size])
        offset += size


def _unpack_archive(tree: _Tree, kind: str, upload_fd: int) -> None:
    for member in reader.members(kind, upload_fd):
        _add(tree, member)


def _add(tree: _Tree, member: Member) -> None:
    if member.kind == members.FILE:
        tree.add_file(member.name, member.mode, _time_ns(member.mtime), member.chunks)
    elif member.kind == members.FOLDER:
        tree.add_folder(member.name, 0o755 if member.mode is None else member.mode)
    elif member.kind == members.SYMLINK:
        tree.add_link(member.name, member.target)
    else:
        tree.add_copy(member.name, member.target, member.mode, _time_ns(member.mtime))


def load(kind: str) -> None:
    """Import all that unpacking an archive of this kind takes, while the work directory is still empty."""
    for name in _MODULES.get(kind, ()):
        __import__(name)


def unpack(
    kind: str,
    upload_fd: int,
    work_fd: int,
    *,
    entrypoint: bytes = b"",
    max_entries: int = MAX_ENTRIES,
    max_bytes: int = 1 << 40,
) -> bytes:
    """Unpack the upload into the directory work_fd; returns the snapshot of the regular files made.

    The snapshot is `path NUL mtime_ns NUL size NUL` for each file, numbers in decimal. kind is a value of
    `sandrun_shared.jobs.UploadKind`; max_bytes bounds all bytes written, including replaced files. If an
    archive has the entrypoint only in its one folder at the top, that folder becomes the directory
    (`names.root_of`). Raises UnpackError and leaves what was made.
    """
    tree = _Tree(work_fd, max_entries, max_bytes)
    try:
        if kind == "bundle":
            _unpack_bundle(tree, upload_fd)
            tree.make_links()
        elif kind in reader.KINDS:
            _unpack_archive(tree, kind, upload_fd)
            tree.make_links()
            tree.make_root(entrypoint)
        else:
            raise UnpackError(f"an upload cannot be a {kind!r}")
        return tree.snapshot()
    except members.ArchiveError as error:
        raise UnpackError(str(error)) from None
    except OSError as error:
        if error.errno in _FULL:
            raise UnpackError("the upload does not fit on the disk", disk_full=True) from error
        raise UnpackError(f"the upload cannot be unpacked: {error.strerror}") from error
