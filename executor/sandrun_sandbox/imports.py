"""Ends importing in a process that has all it needs: what a job leaves must not become a module of ours."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Refusing:
    """The only finder left (importlib.abc.MetaPathFinder): it finds nothing, and lets nobody else look."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> NoReturn:
        """Raises ImportError."""
        raise ImportError(f"nothing is imported any more, {name} neither", name=name)


_FINDERS: list[Any] = [Refusing]
_kept: list[object] = []


def end() -> None:
    """Import nothing more in this process; modules that it has can still be looked up in sys.modules.

    The lists are replaced, not emptied: to free what they hold is to write to it, and each write copies a
    page that this process shares with the zygote.
    """
    _kept.extend((sys.path, sys.path_hooks, sys.path_importer_cache, sys.meta_path))
    sys.path, sys.path_hooks, sys.path_importer_cache = [], [], {}
    sys.meta_path = _FINDERS
