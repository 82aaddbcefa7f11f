"""Names inside an upload or an output, as text: the rules are `sandrun_shared.archives.names`."""

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
    """The name in its one spelling: no leading './', no doubled or trailing '/'; '' is the root itself.

    Raises PathError for absolute names, '..', control characters and names that are too long.
    """
    return names.clean(encoded(name)).decode("utf-8", "surrogateescape")


def encoded(name: str) -> bytes:
    """The bytes that a name stands for. Raises PathError for what is not text."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise PathError("has a name that is not text") from None


def names_folder(name: str) -> bool:
    """Whether a name says by its end that it is a folder's."""
    return names.names_folder(encoded(name))


def link_stays_inside(path: str, target: str) -> bool:
    """Whether a symbolic link at a clean path stays inside the work directory."""
    return names.stays_inside(encoded(path), encoded(target))


def shown(name: str) -> str:
    """A name as an error quotes it: short and printable."""
    return names.shown(name.encode("utf-8", "backslashreplace"))
