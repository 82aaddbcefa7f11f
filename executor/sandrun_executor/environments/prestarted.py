"""Parks of sandboxes in which an interpreter has already started (docs/languages.md)."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

from sandrun_executor.environments.park import Park
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_shared.protocol import Execute, Interpreter

# Major versions whose way of starting a program was looked at, and tried.
TRIED = {"node": ("18", "20", "22")}
MEMORY_BYTES = 128 << 20  # a job with less may find that its interpreter has taken it all already
_log = logging.getLogger("sandrun.executor")


def usable(names: Iterable[str], installed: Mapping[str, Interpreter]) -> list[str]:
    """Those that can be kept started here; the log says why another cannot."""
    found = []
    for name in names:
        version = installed[name].version if name in installed else ""
        if version.split(".")[0] in TRIED.get(name, ()):
            found.append(name)
        else:
            _log.error("%s is not kept started: version %r, tried are %s", name, version, TRIED.get(name))
    return found


class StartedParks:
    """One park for each interpreter, of the size that its name is given times."""

    def __init__(
        self,
        names: Iterable[str],
        prepare: Callable[[str], Awaitable[Sandbox]],
        release: Callable[[Sandbox], None],
    ) -> None:
        self._parks = {
            name: Park(size, partial(prepare, name), release) for name, size in Counter(names).items()
        }

    def open(self) -> None:
        """Begin to fill them."""
        for park in self._parks.values():
            park.open()

    def acquire(self, request: Execute) -> Sandbox | None:
        """A sandbox for this job, if one waits in which it runs as in any other."""
        park = self._parks.get(request.interpreter)
        fits = request.warm and request.environment == "default" and request.gpu is None
        if park is None or not fits or request.limits.memory_bytes < MEMORY_BYTES:
            return None
        return park.acquire_waiting()

    def slot_freed(self) -> None:
        """Whoever waits for a slot may look again."""
        for park in self._parks.values():
            park.slot_freed()

    async def close(self) -> None:
        """Start no more and discard what is there."""
        await asyncio.gather(*(park.close() for park in self._parks.values()))
