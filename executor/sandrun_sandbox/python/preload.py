"""Import the modules of an environment, and find the state that each job must renew.

This runs in the zygote before our other code, so that a job finds exactly the modules that it leaves.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable
from typing import Any

# Libraries read these when they are loaded, which Python cannot observe.
_READ_BY_LIBRARIES = ("OMP_", "OPENBLAS_", "GOTO_", "MKL_", "KMP_", "BLIS_", "GOMP_")


class PreloadError(Exception):
    """The modules cannot be imported ahead of a job; the text says why."""


class Renewal:
    """Renews, in each job's process, the seed of every generator that seeded itself."""

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
        """Reseed this process's generators; a hook of `random` did so for its own at the fork."""
        for seed in self._seeds:
            seed()
        for generator in self._generators:
            generator.state = type(generator)().state
        process = sys.modules.get("multiprocessing.process")
        if process is not None:
            key = process.AuthenticationString(os.urandom(32))
            process.current_process().authkey = key


def _has_random_seed(thing: Any) -> bool:
    """Whether NumPy chose the seed (128 random bits); a RandomState with a given seed has no sequence."""
    generator = getattr(thing, "bit_generator", None) or getattr(thing, "_bit_generator", None)
    entropy = getattr(getattr(generator, "_seed_seq", None), "entropy", None)
    return isinstance(entropy, int) and entropy >= 1 << 64


def _note_seeds(unseeded: dict[int, random.Random]) -> Callable[[], None]:
    """Record each generator that seeds itself; returns a function that ends this."""
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
    """Import the modules; returns what the zygote must know. Raises PreloadError and what the modules raise.

    read: names of variables that were read, and prefixes of those that libraries read; renew: called in each
    job.
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
        raise PreloadError("importing started a thread, which forks do not inherit")
    if _listed("fd") != fds:
        raise PreloadError("importing left a file open, which jobs would not have")
    sys.path_importer_cache.pop(sys.path[0], None)  # the work directory, which differs in a job
    return {
        "read": frozenset(read),
        "read_by_libraries": _READ_BY_LIBRARIES,
        "renew": Renewal(
            [thing for thing in unseeded.values() if not isinstance(thing, random.SystemRandom)]
        ),
    }


def _listed(name: str) -> list[str]:
    """List the descriptors or threads of this process, except the descriptor that lists them."""
    fd = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sorted(entry for entry in os.listdir(fd) if entry != str(fd))
    finally:
        os.close(fd)
