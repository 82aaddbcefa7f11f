"""Rules for every JSON document that a client writes."""

from collections.abc import Container
from typing import Any


class DuplicateName(ValueError):
    """An object has a duplicate name, which is `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"'{name[:100]}' is there twice")
        self.name = name


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from its members, for json's object_pairs_hook. Raises DuplicateName.

    Readers differ in which of two duplicates they use (RFC 8259, 4).
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        raise DuplicateName(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    return found


def without_nulls(value: Any, optional: Container[str]) -> Any:
    """Drop the optional members that are null, because null means absent (RFC 7396, 1).

    Returns any other value unchanged.
    """
    if not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if item is not None or name not in optional}
