"""The check of an archive's table of contents, before its job is queued.

Nothing is unpacked here: the members are counted, named and measured while they stream by. The sandbox
unpacks later, within the job's own limits; this check says early and clearly what is wrong.
It blocks, so it runs in a thread, and is bounded in bytes, members, memory and time.
"""

from collections.abc import Iterator, Mapping

from sandrun_api.errors import ApiError
from sandrun_api.uploads.contents import HEAD_BYTES, MANIFEST_ALONE, Bounds, Contents, Table
from sandrun_shared.archives import members, reader, tar
from sandrun_shared.archives.members import ArchiveError, Member, NotThisKind
from sandrun_shared.jobs import UploadKind
from sandrun_shared.memfds import Memfd

_RECORD_BYTES = 20 * tar.BLOCK  # what tar(1) fills its end up to

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


def kind_of_name(name: str) -> UploadKind | None:
    """The kind of archive that a file's name promises, if any."""
    lowered = name.lower()
    return next((kind for suffix, kind in _SUFFIXES if lowered.endswith(suffix)), None)


def check(
    upload: Memfd, kind: UploadKind, bounds: Bounds, wanted: Mapping[str, int] = MANIFEST_ALONE
) -> Contents:
    """Read the whole archive once and say what it holds; wanted as for Table.

    Raises ApiError: 413 for what is too large, too many or too slow, 400 for anything else, with the
    member's name in the reason.
    """
    table = Table(bounds, wanted)
    # Every member costs up to a header, its extension and padding besides its bytes.
    limit = bounds.total_bytes + bounds.members * 4 * tar.BLOCK + _RECORD_BYTES
    try:
        for member in reader.members(kind, upload.fileno(), lambda pieces: _limited(pieces, table, limit)):
            table.count()
            _enter(member, table)
    except NotThisKind:
        reason = f"The upload is named like a {kind.value} archive but cannot be read as one."
        raise ApiError(400, reason) from None
    except ArchiveError as error:
        raise ApiError(400, str(error)) from None
    return table.contents()


def _limited(pieces: Iterator[bytes], table: Table, limit: int) -> Iterator[bytes]:
    """The pieces of a tar archive, until it is too long or takes too long."""
    for piece in pieces:
        table.tick()
        limit -= len(piece)
        if limit < 0:
            raise ApiError(413, "The archive unpacks to more than a job's files may take.")
        yield piece


def _enter(member: Member, table: Table) -> None:
    name = member.name.decode("utf-8", "surrogateescape")
    target = member.target.decode("utf-8", "surrogateescape")
    if member.kind == members.FOLDER:
        table.add_folder(name)
    elif member.kind == members.SYMLINK:
        table.add_symlink(name, target)
    elif member.kind == members.HARD_LINK:
        table.add_hard_link(name, target)
    else:
        table.grow(member.size, name)
        path = table.add_file(name, member.size)
        limit = table.limit_of(path)
        keep = HEAD_BYTES if limit is None else limit + 1
        start = bytearray()
        for chunk in member.chunks:
            table.tick()
            start += chunk[: keep - len(start)]
        head = bytes(start)
        table.keep_head(path, head)
        if limit is not None:
            table.keep(path, head)
