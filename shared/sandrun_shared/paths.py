"""Names inside an upload or an output, as text, by the rules of `sandrun_shared.archives.names`."""

from sandrun_shared.archives import names
from sandrun_shared.archives.names import MAX_COMPONENT, MAX_PATH, PathError

__all__ = [
    "MAX_COMPONENT",
    "MAX_PATH",
    "PathError",
    "clean",
    "encoded",
    "link_stays_inside",
    "names_folder",
    "shown",
]


def clean(name: str) -> str:
    """Normalize a name: no leading './', no doubled or trailing '/'; '' is the root itself.

    Raises PathError for absolute names, '..', control characters and names that are too long.
    """
    return names.clean(encoded(name)).decode("utf-8", "surrogateescape")


def encoded(name: str) -> bytes:
    """Encode a name as bytes. Raises PathError for text that cannot be encoded."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise PathError("has a name that is not text") from None


def names_folder(name: str) -> bool:
    """Whether the end of a name makes it a folder's."""
    return names.names_folder(encoded(name))


def link_stays_inside(path: str, target: str) -> bool:
    """Whether a symbolic link at a clean path stays inside the work directory."""
    return names.stays_inside(encoded(path), encoded(target))


def shown(name: str) -> str:
    """Shorten a name and make it printable, for an error."""
    return names.shown(name.encode("utf-8", "backslashreplace"))
