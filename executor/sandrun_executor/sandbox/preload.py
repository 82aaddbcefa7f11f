"""Imports the modules of an environment, and finds what of them each job must have for itself.

This runs in the zygote before anything else of ours: a job's modules are those that this leaves.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

# Read by libraries when they are loaded, out of Python's sight.
_READ_BY_LIBRARIES = ("OMP_", "OPENBLAS_", "GOTO_", "MKL_", "KMP_", "BLIS_", "GOMP_")


class PreloadError(Exception):
    """The modules cannot be imported ahead of a job; the text says why."""


class Renewal:
    """What is done in each job's process: generators seeded anew, threads as many as it may use."""

    def __init__(self, generators: tuple[str, ...]) -> None:
        self._seeds: list[Callable[[], object]] = []
        if "numpy.random.mtrand" in sys.modules:
            self._seeds.append(_find("numpy.random.mtrand._rand").seed)
        for name in generators:
            self._seeds.append(_find(name).seed)

    def __call__(self) -> None:
        """Make this process' randomness its own; `random` has a hook that did it at the fork."""
        for seed in self._seeds:
            seed()
        process = sys.modules.get("multiprocessing.process")
        if process is not None:
            key = process.AuthenticationString(os.urandom(32))
            process.current_process().authkey = key


def _find(name: str) -> Any:
    module, _, rest = name.rpartition(".")
    while module not in sys.modules:
        if not module:
            raise PreloadError(f"no module has the generator {name}")
        module, _, part = module.rpartition(".")
        rest = f"{part}.{rest}"
    found: Any = sys.modules[module]
    for part in rest.split("."):
        found = getattr(found, part)
    return found


def preload(modules: tuple[str, ...], generators: tuple[str, ...]) -> dict[str, Any]:
    """Import the modules; what the zygote has to know. Raises PreloadError and what the modules raise.

    read: names of variables that were looked up, and how such names begin that libraries look up; renew: to
    be called in each job.
    """
    fds, read = _listed("fd"), set[str]()
    variables: Any = os.environ
    encode = variables.encodekey

    def noting(key: str) -> bytes:
        read.add(key)
        return encode(key)  # type: ignore[no-any-return]

    variables.encodekey = noting
    try:
        for module in modules:
            __import__(module)
    finally:
        variables.encodekey = encode
    if len(_listed("task")) != 1:
        raise PreloadError("importing started a thread, which no fork has")
    if _listed("fd") != fds:
        raise PreloadError("importing left a file open, which no job has")
    sys.path_importer_cache.pop(sys.path[0], None)  # the work directory, which will be another
    return {
        "read": frozenset(read),
        "read_by_libraries": _READ_BY_LIBRARIES,
        "renew": Renewal(generators),
    }


def _listed(name: str) -> list[str]:
    """Descriptors or threads of this process, less the descriptor that reads them."""
    fd = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sorted(entry for entry in os.listdir(fd) if entry != str(fd))
    finally:
        os.close(fd)
