"""Names inside an upload or an output: relative, inside, and short enough to exist."""

MAX_PATH = 1024  # bytes
MAX_COMPONENT = 255  # bytes; NAME_MAX


class PathError(ValueError):
    """A name that cannot be used; the text says why, without the name."""


def clean(name: str) -> str:
    """The name in its one spelling: no leading './', no doubled or trailing '/'; '' is the root itself.

    Raises PathError for absolute names, '..', control characters and names that are too long.
    """
    if name.startswith("/"):
        raise PathError("is an absolute name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathError("leaves the work directory")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise PathError("has a NUL or control character in its name")
    encoded = [_encode(part) for part in parts]
    if any(len(part) > MAX_COMPONENT for part in encoded):
        raise PathError(f"has a name of more than {MAX_COMPONENT} bytes")
    if sum(len(part) + 1 for part in encoded) > MAX_PATH + 1:
        raise PathError(f"has a path of more than {MAX_PATH} bytes")
    return "/".join(parts)


def _encode(part: str) -> bytes:
    try:
        return part.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise PathError("has a name that is not text") from None


def link_stays_inside(folder_depth: int, target: str) -> bool:
    """Whether a symbolic link in a folder that deep stays inside the work directory.

    '..' is allowed only at the start of the target: after a name, which may be another link, its meaning
    is only known to the kernel.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    return up <= folder_depth and ".." not in parts[up:]


def shown(name: str) -> str:
    """A name as an error quotes it: short and printable."""
    text = name.encode("utf-8", "backslashreplace").decode()
    text = "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)
    return text if len(text) <= 200 else text[:200] + "…"
