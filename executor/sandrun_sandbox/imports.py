"""Disable imports in a process that has all its modules, so that no file of a job becomes one of them."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Refusing:
    """The only finder left (importlib.abc.MetaPathFinder): it refuses every import."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> NoReturn:
        """Raises ImportError."""
        raise ImportError(f"imports are disabled: {name}", name=name)


_FINDERS: list[Any] = [Refusing]
_kept: list[object] = []


def end() -> None:
    """Disable imports in this process; modules in sys.modules can still be looked up.

    The lists are replaced, not emptied, because freeing their items would write to pages that this process
    shares with the zygote, and copy each.
    """
    _kept.extend((sys.path, sys.path_hooks, sys.path_importer_cache, sys.meta_path))
    sys.path, sys.path_hooks, sys.path_importer_cache = [], [], {}
    sys.meta_path = _FINDERS
