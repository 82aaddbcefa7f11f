"""The members of an archive of any kind."""

from __future__ import annotations

from sandrun_shared.archives import streams, tar, zip

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandrun_shared.archives.members import Member

KINDS = ("tar", *streams.MAGIC, "zip")


def members(
    kind: str, fd: int, watched: Callable[[Iterator[bytes]], Iterator[bytes]] = lambda pieces: pieces
) -> Iterator[Member]:
    """Iterate over the members of an archive of one kind (`sandrun_shared.jobs.UploadKind`).

    watched: wraps the pieces of an unpacked tar archive, and may stop the reading by an error. Raises
    ArchiveError, also while a member's bytes are read.
    """
    if kind == "zip":
        return zip.members(fd)
    return tar.members(watched(streams.pieces(kind, fd)))
