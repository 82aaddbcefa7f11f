"""Compare the two readers of an upload: the api's check and the sandbox's unpacker."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandrun_api.errors import ApiError
from sandrun_api.uploads import archives
from sandrun_api.uploads.contents import Bounds, Contents
from sandrun_sandbox import unpack
from sandrun_sandbox.unpack import UnpackError
from sandrun_shared.jobs import UploadKind
from sandrun_shared.languages import BOM
from sandrun_shared.memfds import Memfd

BOUNDS = Bounds(total_bytes=1 << 20, members=50, seconds=60.0)
# What the check alone refuses: which of two members of one name is meant.
STRICTER = ("appears both", "appears twice")


class _Everything(Mapping[str, int]):
    """Accept every file of an upload whole."""

    def __getitem__(self, path: str) -> int:
        return 1 << 30

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@dataclass(frozen=True)
class Unpacked:
    """The unpacked tree by path: bytes and permissions of files, targets of links, folders."""

    files: dict[str, bytes]
    links: dict[str, str]
    folders: frozenset[str]
    modes: dict[str, int]


def at_the_door(kind: UploadKind, data: bytes, bounds: Bounds = BOUNDS) -> Contents:
    """Run the check; returns the tree that it finds. Raises ApiError."""
    upload = Memfd.create("test", data)
    try:
        return archives.check(upload, kind, bounds, _Everything())
    finally:
        upload.close()


def in_the_sandbox(kind: UploadKind, data: bytes, bounds: Bounds = BOUNDS) -> Unpacked:
    """Run the unpacker; returns the tree that it makes. Raises UnpackError."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        upload = os.memfd_create("upload", os.MFD_CLOEXEC)
        try:
            os.write(upload, data)
            unpack.unpack(
                kind.value, upload, folder, max_entries=bounds.members, max_bytes=bounds.total_bytes
            )
        finally:
            os.close(folder)
            os.close(upload)
        return _found(Path(name))


def _found(root: Path) -> Unpacked:
    found = Unpacked({}, {}, frozenset(), {})
    folders = set()
    for where, below, names in os.walk(root):
        for name in (*below, *names):
            path = Path(where, name)
            inside = str(path.relative_to(root))
            if path.is_symlink():
                found.links[inside] = os.readlink(path)
            elif path.is_dir():
                folders.add(inside)
            else:
                found.files[inside] = path.read_bytes()
                found.modes[inside] = path.stat().st_mode & 0o7777
    return Unpacked(found.files, found.links, frozenset(folders), found.modes)


def agree(kind: UploadKind, data: bytes, bounds: Bounds = BOUNDS) -> Unpacked | ApiError:
    """Run both; returns the tree, or the api's refusal. Raises AssertionError if they differ."""
    try:
        contents = at_the_door(kind, data, bounds)
    except ApiError as refusal:
        assert refusal.status in (400, 413)
        if refusal.status == 400 and not any(word in refusal.reason for word in STRICTER):
            try:
                made = in_the_sandbox(kind, data, bounds)
            except UnpackError:
                return refusal
            raise AssertionError(f"the door refuses what is unpacked: {refusal.reason}, {made}") from None
        return refusal
    try:
        made = in_the_sandbox(kind, data, bounds)
    except UnpackError as error:
        raise AssertionError(f"the door accepts what the sandbox refuses: {error}") from None
    assert contents.files == made.files.keys() | made.links.keys()
    paths = (*made.files, *made.links, *made.folders)
    assert contents.tops == {path.partition("/")[0] for path in paths}
    assert contents.kept == made.files
    heads = {
        path: data[:256] for path, data in made.files.items() if data.startswith((b"#!", BOM, b"\x7fELF"))
    }
    assert contents.heads == heads
    return made
