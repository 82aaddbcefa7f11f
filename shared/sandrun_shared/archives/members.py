"""A member of an archive, as either format gives it, and what is said of one that cannot be read."""

from __future__ import annotations

from sandrun_shared.archives.names import shown

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, FOLDER, SYMLINK, HARD_LINK = "file", "folder", "symlink", "hard link"
CHUNK_BYTES = 256 << 10
_NO_CHUNKS: Iterator[bytes] = iter(())


class ArchiveError(Exception):
    """The archive cannot be read, or holds what no upload may hold; the text is for the client."""


class NotThisKind(ArchiveError):
    """The upload's first bytes are not those of such an archive."""


class Member:
    """One member; its bytes must be taken before the next member is asked for.

    kind: one of the four above; mode: permissions, None where the archive could not say them; mtime: seconds
    since 1970, whatever the archive says; target: of a link; size: of a file, in bytes; chunks: a file's
    bytes, exactly size of them. Taking them raises ArchiveError.
    """

    __slots__ = ("chunks", "kind", "mode", "mtime", "name", "size", "target")

    def __init__(
        self,
        name: bytes,
        kind: str,
        mode: int | None,
        mtime: float,
        *,
        size: int = 0,
        target: bytes = b"",
        chunks: Iterator[bytes] = _NO_CHUNKS,
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.mtime = mtime
        self.size = size
        self.target = target
        self.chunks = chunks


def refused(name: bytes, what: str) -> ArchiveError:
    """The error of a member that is well formed and cannot be taken."""
    return ArchiveError(f"Member '{shown(name)}' {what}.")


def of_no_use(name: bytes, what: str) -> ArchiveError:
    """The error of a member that is no file, folder or link."""
    return refused(name, f"is {what}; only files, folders and links are accepted")
