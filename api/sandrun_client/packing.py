"""A folder as an upload: the same files give the same bytes, and what is ignored stays at home."""

import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sandrun_client.errors import InvalidUpload
from sandrun_shared.orders import bundle_sha256

if TYPE_CHECKING:
    import tarfile

    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".sandrunignore")  # a later one outranks an earlier one
# What no job needs. A .sandrunignore takes any of it back in with a line like `!.venv/`.
IGNORED = (
    ".git/ .hg/ .svn/ .jj/ __pycache__/ *.pyc .venv/ .mypy_cache/ .pytest_cache/ .ruff_cache/ .DS_Store "
    ".idea/ .vscode/"
).split()
PIECE = 1 << 20
SYMLINK = b"2"  # the type of a member, tarfile.SYMTYPE


@dataclass(frozen=True)
class Packed:
    """An upload ready to be sent; the file is the owner's to close."""

    name: str
    file: IO[bytes]
    size_bytes: int
    sha256: str

    def close(self) -> None:
        """Forget the bytes."""
        self.file.close()


def pack_directory(
    folder: str | os.PathLike[str], exclude: Iterable[str] = (), extra: Mapping[str, bytes] | None = None
) -> Packed:
    """An uncompressed tar of a folder. Raises InvalidUpload.

    Excluded is what `.gitignore` and `.sandrunignore` name, in every folder, and what `exclude` names in the
    same syntax (gitignore(5)). Names are sorted; owners, times and all modes but the executable bit are left
    out; compression would make the bytes depend on a library's version. `extra` are contents by path that the
    folder does not have.
    """
    top = Path(folder)
    if not top.is_dir():
        raise InvalidUpload(f"{top} is not a folder.")
    import tempfile  # noqa: PLC0415 - slow to load, and a single file needs none

    # It has no name, and the folder may not fit into memory.
    file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with _tar(file) as archive:
            for path in files_of(top, exclude):
                _add(archive, top, path)
            for name, content in (extra or {}).items():
                _add_content(archive, name, content)
        return _packed("upload.tar", file)
    except OSError as error:
        file.close()
        raise InvalidUpload(f"{error.filename or top} cannot be read: {error.strerror}.") from error
    except BaseException:
        file.close()
        raise


def pack_files(files: Mapping[str, bytes]) -> Packed:
    """An uncompressed tar of contents by path."""
    file = io.BytesIO()
    with _tar(file) as archive:
        for name in sorted(files):
            _add_content(archive, name, files[name])
    return _packed("upload.tar", file)


def pack_code(name: str, code: bytes) -> Packed:
    """A single file, sent as it is."""
    if "/" in name or "\\" in name:
        raise InvalidUpload(f"{name!r} is not the name of a single file.")
    try:
        digest = bundle_sha256([(name, code)])
    except ValueError as error:
        raise InvalidUpload(f"{name!r} is not the name of a file: {error}.") from None
    return Packed(name, io.BytesIO(code), len(code), digest)


def files_of(top: Path, exclude: Iterable[str] = ()) -> Iterator[Path]:
    """The files and links of a folder that are not ignored, sorted by the bytes of their paths."""
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 - slow to load, and only folders need it

    base = GitIgnoreSpec.from_lines(IGNORED)
    last = GitIgnoreSpec.from_lines(exclude)

    def walk(folder: Path, specs: "list[tuple[Path, GitIgnoreSpec]]") -> Iterator[Path]:
        specs = [*specs, *_specs_in(folder)]
        for entry in sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name)):
            path = Path(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False)
            if _ignored(path, is_folder, [(top, base), *specs, (top, last)]):
                continue
            if is_folder:
                yield from walk(path, specs)
            elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                yield path

    return walk(top, [])


def _specs_in(folder: Path) -> "Iterator[tuple[Path, GitIgnoreSpec]]":
    from pathspec import GitIgnoreSpec  # noqa: PLC0415

    for name in IGNORE_FILES:
        try:
            lines = (folder / name).read_text("utf-8", "replace").splitlines()
        except (FileNotFoundError, IsADirectoryError):
            continue
        yield folder, GitIgnoreSpec.from_lines(lines)


def _ignored(path: Path, is_folder: bool, specs: "list[tuple[Path, GitIgnoreSpec]]") -> bool:
    for folder, spec in reversed(specs):
        name = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
        include = spec.check_file(name).include
        if include is not None:
            return include
    return False


def _add(archive: "tarfile.TarFile", top: Path, path: Path) -> None:
    member = _member(path.relative_to(top).as_posix())
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        member.type, member.linkname = SYMLINK, os.readlink(path)
        archive.addfile(member)
        return
    with path.open("rb") as source:
        status = os.fstat(source.fileno())
        member.size = status.st_size
        member.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        archive.addfile(member, source)


def _add_content(archive: "tarfile.TarFile", name: str, content: bytes) -> None:
    member = _member(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _member(name: str) -> "tarfile.TarInfo":
    import tarfile  # noqa: PLC0415

    member = tarfile.TarInfo(name)
    member.mtime = member.uid = member.gid = 0
    member.mode = 0o644
    return member


def _tar(file: IO[bytes]) -> "tarfile.TarFile":
    import tarfile  # noqa: PLC0415 - likewise

    # The GNU format: names are bytes, and no header holds a time of packing.
    return tarfile.open(
        fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    )


def _packed(name: str, file: IO[bytes]) -> Packed:
    size = file.tell()
    file.flush()
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        digest.update(piece)
    file.seek(0)
    return Packed(name, file, size, digest.hexdigest())
