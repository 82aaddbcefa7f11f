"""Collect the files that a job left, with the job's uid, after every process of the job is dead.

Collects regular files only, opened beneath the work directory without following a link. Everything is bounded
and nothing recurses. `sandrun_shared.outputs` has the same rules for paths, for the api. Nothing can be
imported here any more (`imports`).
"""

from __future__ import annotations

import errno
import os
import stat
import time

from sandrun_sandbox import beneath
from sandrun_sandbox.layout import REASONS

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 1 << 20
MAX_PATTERN_CHARACTERS = 1024
MAX_PATH_BYTES = 1024
MAX_INDEX_BYTES = 64 << 20
FILE_BYTES = 48 + 5  # of the index for each file, in addition to its path
MAX_TIME_SECONDS = 2**32 - 1  # the largest that every archive format can hold

_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_READ_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_STAR, _GLOBSTAR, _ANY, _CLASS = "*", "**", "?", "["
MAX_MASKS = 1024  # cached characters


class Globs:
    """Patterns of output paths: `*` `?` `[a-z]` within a name, `**` across folders, `folder/` all of it.

    All patterns are matched at once as an automaton whose states are the bits of one integer, so the time is
    linear in the path whatever the patterns (no backtracking). After the tokens of each pattern, one bit is
    its end.
    """

    def __init__(self, patterns: list[str]) -> None:
        self._places = 0
        self._single = self._double = self._any = self._skips = self._first = self._ends = 0
        self._literals: dict[str, int] = {}
        self._classes: list[tuple[str, int]] = []
        self._masks: dict[str, tuple[int, int]] = {}
        for pattern in patterns:
            self._add(_collapsed(pattern))
        self._stars = self._single | self._double
        self._first = self._spread(self._first, at_a_name=True)

    def _add(self, tokens: list[tuple[str, str]]) -> None:
        self._first |= 1 << self._places
        names_start = True
        for number, (kind, text) in enumerate(tokens):
            bit = 1 << (self._places + number)
            if kind == "":
                self._literals[text] = self._literals.get(text, 0) | bit
            elif kind == _STAR:
                self._single |= bit
            elif kind == _ANY:
                self._any |= bit
            elif kind == _CLASS:
                self._classes.append((text, bit))
            else:
                self._double |= bit
                if names_start and tokens[number + 1 : number + 2] == [("", "/")]:
                    self._skips |= bit  # `**/` is also no folder at all
            names_start = (kind, text) == ("", "/")
        self._ends |= 1 << (self._places + len(tokens))
        self._places += len(tokens) + 1

    def _spread(self, states: int, at_a_name: bool) -> int:
        skips = self._skips if at_a_name else 0
        while True:
            more = states | (states & self._stars) << 1 | (states & skips) << 2
            if more == states:
                return states
            states = more

    def _mask(self, character: str) -> tuple[int, int]:
        """Compute the states that a character advances, and those in which it may stay."""
        moves, stays = self._literals.get(character, 0), self._double
        if character != "/":
            stays |= self._single
            moves |= self._any
            for text, bit in self._classes:
                if _in_class(text, character):
                    moves |= bit
        if len(self._masks) < MAX_MASKS:
            self._masks[character] = moves, stays
        return moves, stays

    def matches(self, path: str) -> bool:
        """Whether the whole path matches one of them."""
        states = self._first
        for character in path:
            moves, stays = self._masks.get(character) or self._mask(character)
            states = self._spread((states & moves) << 1 | states & stays, character == "/")
            if not states:
                return False
        return bool(states & self._ends)


def _collapsed(pattern: str) -> list[tuple[str, str]]:
    """Tokenize a pattern, with repeated stars as one, and `**/**/` as `**/`."""
    tokens: list[tuple[str, str]] = []
    for kind, text in _tokens(pattern):
        if kind in (_STAR, _GLOBSTAR) and tokens and tokens[-1][0] in (_STAR, _GLOBSTAR):
            if kind == _GLOBSTAR:
                tokens[-1] = (kind, text)
            continue
        tokens.append((kind, text))
        if tokens[-4:] == [(_GLOBSTAR, ""), ("", "/")] * 2:
            del tokens[-2:]
    return tokens


def _tokens(pattern: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(pattern):
        character = pattern[place]
        if character == "*":
            start = place
            while pattern[place : place + 1] == "*":
                place += 1
            yield (_STAR if place - start == 1 else _GLOBSTAR), ""
            continue
        place += 1
        if character == "?":
            yield _ANY, ""
        elif character == "[":
            first = place + (pattern[place : place + 1] == "!")
            end = pattern.find("]", first + 1)  # a leading bracket is a member
            if end < 0:
                yield "", "["
            else:
                yield _CLASS, pattern[place:end]
                place = end + 1
        else:
            yield "", character


def _in_class(text: str, character: str) -> bool:
    wanted = not text.startswith("!")
    members = text if wanted else text[1:]
    place = 0
    while place < len(members):
        low = high = members[place]
        if members[place + 1 : place + 2] == "-" and place + 2 < len(members):
            high = members[place + 2]
            place += 2
        if low <= character <= high:
            return wanted
        place += 1
    return not wanted


def compile_patterns(patterns: list[str]) -> Globs:
    """Compile the patterns that can match in the work directory; drops absolute ones and `..`."""
    usable = []
    for text in dict.fromkeys(patterns):
        pattern = text
        while pattern.startswith("./"):
            pattern = pattern[2:].lstrip("/")
        if pattern in ("", ".") and text:
            pattern = "**"
        elif pattern.endswith("/"):
            pattern += "**"
        absolute = pattern.startswith("/") or not pattern
        if absolute or ".." in pattern.split("/") or len(pattern) > MAX_PATTERN_CHARACTERS:
            continue
        usable.append(pattern)
    return Globs(usable)


class _Wanted:
    """Selects the paths to collect: by patterns or, without any, those that changed since unpacking."""

    def __init__(self, patterns: list[str], snapshot: bytes) -> None:
        self.changes = not patterns
        self.globs = compile_patterns(patterns)
        fields = snapshot.split(b"\0") if self.changes else []
        self.before = dict(zip(fields[0::3], zip(fields[1::3], fields[2::3])))  # noqa: B905  # 3.10 has strict

    def folder(self, name: bytes) -> bool:
        return not (self.changes and name == b"__pycache__")

    def path(self, path: bytes) -> bool:
        if self.changes:
            return True
        text = path.decode("utf-8", "surrogateescape")
        return self.globs.matches(text)

    def state(self, path: bytes, status: os.stat_result) -> bool:
        if not self.changes:
            return True
        return self.before.get(path) != (b"%d" % status.st_mtime_ns, b"%d" % status.st_size)


class Into:
    """Memfds that a collector fills: the files' bytes, names and numbers.

    names: for each file its path and its mode in octal, each NUL-terminated. numbers: for each its size and
    its time in seconds since 1970, as eight bytes each, big-endian.
    """

    def __init__(self, data_fd: int, names_fd: int, numbers_fd: int) -> None:
        self.data_fd = data_fd
        self.names_fd = names_fd
        self.numbers_fd = numbers_fd


class _Collector:
    def __init__(
        self,
        work_fd: int,
        wanted: _Wanted,
        data_fd: int,
        *,
        max_files: int,
        max_bytes: int,
        max_entries: int,
        deadline: float,
    ) -> None:
        self.work_fd = work_fd
        self.wanted = wanted
        self.data_fd = data_fd
        self.files_left = max_files
        self.bytes_left = max_bytes
        self.entries_left = max_entries
        self.index_left = MAX_INDEX_BYTES - 8  # which hold the number of files
        self.deadline = deadline
        self.offset = 0
        self.names: list[bytes] = []
        self.numbers: list[bytes] = []
        self.shown: set[str] = set()
        self.left_out = dict.fromkeys(REASONS, 0)
        self.stopped = False  # no more files are collected, and left_out says why

    def _leave_out(self, reason: str, *, stop: bool = False) -> None:
        self.left_out[reason] += 1
        self.stopped = self.stopped or stop

    def _is_late(self) -> bool:
        if time.monotonic() < self.deadline:
            return False
        self._leave_out("out_of_time", stop=True)
        return True

    def _store(self, chunk: bytes, offset: int) -> bool:
        done = 0
        while done < len(chunk):
            try:
                count = os.pwrite(self.data_fd, chunk[done:], offset + done)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._leave_out("no_memory", stop=True)
                return False
            done += count
        return True

    def _copy(self, fd: int, size: int) -> int | None:
        """Append at most `size` bytes to the data; returns how many, None if the file is left out."""
        done = 0
        while done < size and not self._is_late():
            try:
                chunk = os.read(fd, min(CHUNK_BYTES, size - done))
            except OSError:
                self._leave_out("unreadable")
                break
            if not chunk:
                return done
            if not self._store(chunk, self.offset + done):
                break
            done += len(chunk)
        if done == size:
            return done
        os.ftruncate(self.data_fd, self.offset)  # drops this file's part
        return None

    def file(self, path: bytes) -> None:
        """Collect one file if it is wanted, regular, and fits."""
        try:
            fd = beneath.open_beneath(self.work_fd, path, _READ_FILE)
        except OSError:
            self._leave_out("unreadable")  # a mode without read permission, or a link put in its place
            return
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or not self.wanted.state(path, status):
                return
            shown = path.decode("utf-8", "backslashreplace")
            room = len(path) + FILE_BYTES
            if self.files_left == 0 or self.index_left < room:
                self._leave_out("too_many_files", stop=True)
            elif shown in self.shown:  # b"\xff" and b"\\xff": one address would name two files
                self._leave_out("same_name")
            elif status.st_size > self.bytes_left:
                self._leave_out("too_large")
            elif (size := self._copy(fd, status.st_size)) is not None:
                self.shown.add(shown)
                self._list(path, size, status)
                self.index_left -= room
        finally:
            os.close(fd)

    def _list(self, path: bytes, size: int, status: os.stat_result) -> None:
        seconds = min(max(status.st_mtime_ns // 10**9, 0), MAX_TIME_SECONDS)
        self.names += (path, b"%03o" % (status.st_mode & 0o777))
        self.numbers += (size.to_bytes(8, "big"), seconds.to_bytes(8, "big"))
        self.offset += size
        self.bytes_left -= size
        self.files_left -= 1

    def _listed(self, folder: bytes) -> list[tuple[bytes, bool]]:
        """List the folders (True) and regular files in a folder, sorted, within the bound on entries."""
        try:
            fd = beneath.open_beneath(self.work_fd, folder or b".", _READ_FOLDER)
        except OSError:
            self._leave_out("unreadable")
            return []
        names = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if self.entries_left == 0:
                        self._leave_out("too_many_entries")
                        break
                    self.entries_left -= 1
                    is_folder = entry.is_dir(follow_symlinks=False)
                    if is_folder or entry.is_file(follow_symlinks=False):
                        names.append((os.fsencode(entry.name), is_folder))
        except OSError:
            self._leave_out("unreadable")
        finally:
            os.close(fd)
        names.sort()
        return names

    def walk(self) -> None:
        """Visit every folder: first its files, then its folders, both sorted by name."""
        folders = [b""]
        while folders and not self.stopped:
            folder = folders.pop()
            prefix = folder + b"/" if folder else b""
            depth = prefix.count(b"/")
            below = []
            for name, is_folder in self._listed(folder):
                if self.stopped or self._is_late():
                    return
                path = prefix + name
                if is_folder and not self.wanted.folder(name):
                    continue
                if len(path) > MAX_PATH_BYTES:
                    if is_folder or self.wanted.path(path):
                        self._leave_out("path_too_long")
                elif not is_folder:
                    if self.wanted.path(path):
                        self.file(path)
                elif depth + 1 >= beneath.MAX_DEPTH:
                    self._leave_out("too_deep")
                else:
                    below.append(path)
            folders += reversed(below)


def _write_all(fd: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])


def collect(
    work_fd: int,
    patterns: list[str],
    snapshot: bytes,
    into: Into,
    *,
    max_files: int,
    max_bytes: int,
    seconds: float,
    max_entries: int = 80_000,
) -> dict[str, int]:
    """Fill the memfds with the wanted files; returns how many were left out, for each of REASONS.

    Without any pattern, every file is wanted that is new or differs in time or size from the snapshot (which
    `unpack` returned). A file that does not fit is left out entirely; a folder counts as one. Raises OSError
    if names or numbers cannot be written.
    """
    deadline = time.monotonic() + seconds
    wanted = _Wanted(patterns, snapshot)
    collector = _Collector(
        work_fd,
        wanted,
        into.data_fd,
        max_files=max_files,
        max_bytes=max_bytes,
        max_entries=max_entries,
        deadline=deadline,
    )
    collector.walk()
    _write_all(into.names_fd, b"".join([name + b"\0" for name in collector.names]))
    _write_all(into.numbers_fd, b"".join(collector.numbers))
    return collector.left_out
