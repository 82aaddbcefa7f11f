"""Imports the modules of an environment, and finds what of them each job must have for itself.

This runs in the zygote before anything else of ours: a job's modules are those that this leaves.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable
from typing import Any

# Read by libraries when they are loaded, out of Python's sight.
_READ_BY_LIBRARIES = ("OMP_", "OPENBLAS_", "GOTO_", "MKL_", "KMP_", "BLIS_", "GOMP_")


class PreloadError(Exception):
    """The modules cannot be imported ahead of a job; the text says why."""


class Renewal:
    """What is done in each job's process: generators that nobody gave a seed get one of their own."""

    def __init__(self, unseeded: list[random.Random]) -> None:
        self._seeds: list[Callable[[], object]] = [generator.seed for generator in unseeded]
        self._generators: list[Any] = []
        for thing in gc.get_objects():
            kind = type(thing)
            if str(kind.__module__).startswith("numpy.random") and _has_random_seed(thing):
                if kind.__name__ == "RandomState":
                    self._seeds.append(thing.seed)
                elif kind.__name__ == "Generator":
                    self._generators.append(thing.bit_generator)

    def __call__(self) -> None:
        """Make this process' randomness its own; `random` has a hook that did it at the fork."""
        for seed in self._seeds:
            seed()
        for generator in self._generators:
            generator.state = type(generator)().state
        process = sys.modules.get("multiprocessing.process")
        if process is not None:
            key = process.AuthenticationString(os.urandom(32))
            process.current_process().authkey = key


def _has_random_seed(thing: Any) -> bool:
    """Whether NumPy chose the seed, of 128 random bits; a RandomState that was given one has no sequence."""
    generator = getattr(thing, "bit_generator", None) or getattr(thing, "_bit_generator", None)
    entropy = getattr(getattr(generator, "_seed_seq", None), "entropy", None)
    return isinstance(entropy, int) and entropy >= 1 << 64


def _note_seeds(unseeded: dict[int, random.Random]) -> Callable[[], None]:
    """From now on note each generator that seeds itself; returns what ends that."""
    original = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        original(self, a, version)
        if a is None:
            unseeded[id(self)] = self
        else:
            unseeded.pop(id(self), None)

    def end() -> None:
        random.Random.seed = original  # type: ignore[method-assign]

    random.Random.seed = seed  # type: ignore[method-assign]
    return end


def preload(modules: tuple[str, ...]) -> dict[str, Any]:
    """Import the modules; what the zygote has to know. Raises PreloadError and what the modules raise.

    read: names of variables that were looked up, and how such names begin that libraries look up; renew: to
    be called in each job.
    """
    fds, read = _listed("fd"), set[str]()
    unseeded: dict[int, random.Random] = {}
    note_no_more = _note_seeds(unseeded)
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
        note_no_more()
    if len(_listed("task")) != 1:
        raise PreloadError("importing started a thread, which no fork has")
    if _listed("fd") != fds:
        raise PreloadError("importing left a file open, which no job has")
    sys.path_importer_cache.pop(sys.path[0], None)  # the work directory, which will be another
    return {
        "read": frozenset(read),
        "read_by_libraries": _READ_BY_LIBRARIES,
        "renew": Renewal(
            [thing for thing in unseeded.values() if not isinstance(thing, random.SystemRandom)]
        ),
    }


def _listed(name: str) -> list[str]:
    """Descriptors or threads of this process, less the descriptor that reads them."""
    fd = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sorted(entry for entry in os.listdir(fd) if entry != str(fd))
    finally:
        os.close(fd)
