"""A member of an archive of either format, and the errors of archives."""

from __future__ import annotations

from sandrun_shared.archives.names import shown

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, FOLDER, SYMLINK, HARD_LINK = "file", "folder", "symlink", "hard link"
CHUNK_BYTES = 256 << 10
_NO_CHUNKS: Iterator[bytes] = iter(())


class ArchiveError(Exception):
    """The archive cannot be read, or holds a member that no upload may have; the text is for the client."""


class NotThisKind(ArchiveError):
    """The upload's first bytes are not those of this kind of archive."""


class Member:
    """One member; read its bytes before asking for the next member.

    kind: one of the four above; mode: permissions, None if the archive cannot hold them; mtime: seconds since
    1970, unchecked; target: of a link; size: of a file, in bytes; chunks: exactly size bytes of a file, whose
    reading raises ArchiveError.
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
    """Make the error for a well-formed member that is not accepted."""
    return ArchiveError(f"Member '{shown(name)}' {what}.")


def of_no_use(name: bytes, what: str) -> ArchiveError:
    """Make the error for a member other than a file, folder or link."""
    return refused(name, f"is {what}; only files, folders and links are accepted")
