"""The names that an upload's files may have, and where its links may lead.

The api refuses by these rules and the sandbox unpacks by them. They are stricter than those of
`sandrun_sandbox.beneath`, which apply to files that a job makes.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MAX_PATH = 1024  # bytes
MAX_COMPONENT = 255  # bytes; NAME_MAX
MAX_DEPTH = 64  # names in a path
MAX_TARGET = 4095  # bytes; PATH_MAX without its NUL


class PathError(ValueError):
    """A name is not allowed; the text says why, without the name."""


# What macOS adds to the archives that it makes, besides the folder that was packed.
NO_CONTENT = b"__MACOSX"


def root_of(entrypoint: bytes, files: Collection[bytes], tops: Iterable[bytes]) -> bytes:
    """The only name at the top of an archive, if it is a folder and the entrypoint is only there; else b"".

    That folder then is the upload's root. Paths are clean; files are those that are no folders.
    """
    names = [name for name in tops if name != NO_CONTENT]
    if len(names) != 1 or entrypoint in files or b"%b/%b" % (names[0], entrypoint) not in files:
        return b""
    return names[0]


def clean(name: bytes) -> bytes:
    """Normalize a name: no '.', no doubled or trailing '/'; b'' is the root itself.

    Raises PathError for absolute names, '..', control characters and names that are too long.
    """
    if name.startswith(b"/"):
        raise PathError("is an absolute name")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise PathError("leaves the work directory")
    if any(byte < 32 or byte == 127 for byte in name):
        raise PathError("has a NUL or control character in its name")
    if any(len(part) > MAX_COMPONENT for part in parts):
        raise PathError(f"has a name of more than {MAX_COMPONENT} bytes")
    path = b"/".join(parts)
    if len(path) > MAX_PATH:
        raise PathError(f"has a path of more than {MAX_PATH} bytes")
    if len(parts) > MAX_DEPTH:
        raise PathError(f"has a path of more than {MAX_DEPTH} names")
    return path


def names_folder(name: bytes) -> bool:
    """Whether the end of a name makes it a folder's (path_resolution(7))."""
    return name.rpartition(b"/")[2] in (b"", b".", b"..")


def stays_inside(path: bytes, target: bytes) -> bool:
    """Whether a symbolic link at a clean path, with that target, stays inside the work directory.

    '..' may stand only at the start, where it leaves real folders. After a name it could leave another link's
    target, which counting the names does not detect.
    """
    if not target or target.startswith(b"/") or b"\0" in target or len(target) > MAX_TARGET:
        return False
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = 0
    while up < len(parts) and parts[up] == b"..":
        up += 1
    return up <= path.count(b"/") and b".." not in parts[up:]


def shown(name: bytes) -> str:
    """Shorten a name and make it printable, for an error."""
    text = name[:1000].decode("utf-8", "backslashreplace")
    text = "".join([c if c.isprintable() else f"\\x{ord(c):02x}" for c in text])
    return text if len(text) <= 200 else text[:200] + "…"
