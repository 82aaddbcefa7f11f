"""What an upload holds, as its check found it, and the rules that hold between its members."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sandrun_api.errors import ApiError
from sandrun_shared.archives import names
from sandrun_shared.languages import BOM
from sandrun_shared.paths import PathError, clean, encoded, link_stays_inside, names_folder, shown

HEAD_BYTES = 256  # what is kept of a script's first line, or of an ELF header
MANIFEST_NAME = "job.json"
MANIFEST_BYTES = 16 << 20  # as much as a whole run, of which stdin may be the most
NAMES_BYTES = 32 << 20  # of memory for the names of all members and of the folders above them
ENTRY_BYTES = 240  # what one name takes besides its characters, in all tables
MOST_TOPS = 2  # at the top of an archive with a folder that is its root
MANIFEST_ALONE = MappingProxyType({MANIFEST_NAME: MANIFEST_BYTES})


@dataclass(frozen=True)
class Bounds:
    """What a check may cost and accept: total bytes of the files, members, seconds of CPU time."""

    total_bytes: int
    members: int
    seconds: float


@dataclass(frozen=True)
class Contents:
    """An upload's files, first bytes of those that begin with '#!', ELF or a BOM, and those wanted whole.

    held_bytes is what all this takes in memory. tops are the names at the top of an archive, folders too.
    """

    files: frozenset[str]
    heads: dict[str, bytes] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    held_bytes: int = 0
    tops: frozenset[str] = frozenset()

    def root_of(self, entrypoint: str) -> str:
        """The folder that is the root of this archive (`names.root_of`); "" if that is the archive itself."""
        if len(self.tops) > MOST_TOPS or entrypoint in self.files:
            return ""
        files = {path for path in self.files if path.endswith(f"/{entrypoint}")}
        tops = [encoded(top) for top in self.tops]
        root = names.root_of(encoded(entrypoint), {encoded(path) for path in files}, tops)
        return root.decode("utf-8", "surrogateescape")


class Table:
    """The members seen so far. Every method raises ApiError for a member that breaks a rule."""

    def __init__(self, bounds: Bounds, wanted: Mapping[str, int] = MANIFEST_ALONE) -> None:
        """wanted is how many bytes the files may have that are kept whole, by path."""
        self._bounds = bounds
        self._wanted = wanted
        # Of this thread: a busy machine makes no upload too large.
        self._deadline = time.thread_time() + bounds.seconds
        self._kinds: dict[str, str] = {}  # path -> file, link or dir
        self._sizes: dict[str, int] = {}  # of files
        self._total = 0
        self._count = 0
        self._heads: dict[str, bytes] = {}
        self._kept: dict[str, bytes] = {}
        self._known = 0  # names so far
        self._names_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What the table takes in memory."""
        kept = sum(len(data) for data in self._kept.values())
        return self._names_bytes + len(self._heads) * (HEAD_BYTES + ENTRY_BYTES) + kept

    def tick(self) -> None:
        """Stop a check that takes too long."""
        if time.thread_time() > self._deadline:
            seconds = f"{self._bounds.seconds:g} seconds"
            raise ApiError(413, f"Reading the upload takes more than {seconds} of CPU time.")

    def count(self) -> None:
        """Count one member of any type."""
        self.tick()
        self._count += 1
        if self._count > self._bounds.members:
            raise ApiError(413, f"The upload has more than {self._bounds.members} members.")

    def grow(self, size: int, name: str) -> None:
        """Count bytes of a member."""
        self._total += size
        if self._total > self._bounds.total_bytes:
            limit = self._bounds.total_bytes >> 20
            raise ApiError(413, f"The upload unpacks to more than {limit} MiB, at member '{shown(name)}'.")

    def add_folder(self, name: str) -> None:
        """Enter a folder, which may come twice."""
        path = self._path(name)
        if path:
            self._enter_parents(name, path)
            if self._entered(path, "dir") != "dir":
                raise ApiError(400, f"Member '{shown(name)}' appears both as a folder and as a file.")

    def add_file(self, name: str, size: int = 0) -> str:
        """Enter a regular file, which may come twice (the later one wins); its clean path.

        size is what a hard link to it will take.
        """
        path = self._named(name)
        if self._entered(path, "file") != "file":
            raise ApiError(400, f"Member '{shown(name)}' appears both as a file and as something else.")
        self._sizes[path] = size
        self._heads.pop(path, None)
        self._kept.pop(path, None)
        return path

    def add_symlink(self, name: str, target: str) -> None:
        """Enter a symbolic link, which must stay inside the upload."""
        path = self._named(name)
        if not link_stays_inside(path, target):
            raise ApiError(400, f"Member '{shown(name)}' is a link out of the upload: '{shown(target)}'.")
        if path in self._kinds:
            raise ApiError(400, f"Member '{shown(name)}' appears twice, once as a link.")
        self._entered(path, "link")

    def add_hard_link(self, name: str, target: str) -> None:
        """Enter a hard link, which must name a regular file that came before: it becomes a copy of that."""
        source = self._path(target)
        if self._kinds.get(source) != "file" or source == self._path(name):
            raise ApiError(
                400, f"Member '{shown(name)}' is a hard link to '{shown(target)}', which is no earlier file."
            )
        head, kept, size = self._heads.get(source), self._kept.get(source), self._sizes[source]
        self.grow(size, name)
        path = self.add_file(name, size)
        if head is not None:
            self._heads[path] = head
        if kept is not None and self.limit_of(path) is not None:
            self.keep(path, kept)

    def keep_head(self, path: str, head: bytes) -> None:
        """Keep the first bytes that tell what runs the file."""
        if head.startswith((b"#!", BOM, b"\x7fELF")):
            self._heads[path] = head[:HEAD_BYTES]

    def limit_of(self, path: str) -> int | None:
        """The most bytes a file may have that is wanted whole, None for one that is not."""
        return self._wanted.get(path)

    def keep(self, path: str, data: bytes) -> None:
        """Keep a file that is wanted whole."""
        limit = self._wanted[path]
        if len(data) > limit:
            raise ApiError(413, f"{shown(path)} has more than {limit >> 10} KiB.")
        self._kept[path] = data

    def contents(self) -> Contents:
        """What was seen."""
        files = frozenset(path for path, kind in self._kinds.items() if kind != "dir")
        tops = frozenset(path for path in self._kinds if "/" not in path)
        return Contents(files, self._heads, self._kept, self.held_bytes, tops)

    def _entered(self, path: str, kind: str) -> str:
        """What the path is: what it was before, or this."""
        known = self._kinds.setdefault(path, kind)
        if len(self._kinds) > self._known:
            self._known = len(self._kinds)
            self._names_bytes += len(path) + ENTRY_BYTES
            if self._names_bytes > NAMES_BYTES:
                raise ApiError(413, f"The upload's names take more than {NAMES_BYTES >> 20} MiB of memory.")
        return known

    def _path(self, name: str) -> str:
        try:
            return clean(name)
        except PathError as error:
            raise ApiError(400, f"Member '{shown(name)}' {error}.") from None

    def _named(self, name: str) -> str:
        path = self._path(name)
        if not path or names_folder(name):
            raise ApiError(400, f"Member '{shown(name)}' is a file with the name of a folder.")
        self._enter_parents(name, path)
        return path

    def _enter_parents(self, name: str, path: str) -> None:
        end = path.find("/")
        while end >= 0:
            if self._entered(path[:end], "dir") != "dir":
                raise ApiError(400, f"Member '{shown(name)}' lies below '{shown(path[:end])}', not a folder.")
            end = path.find("/", end + 1)
