"""Parks of sandboxes in which an interpreter has already started (docs/languages.md)."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

from sandrun_executor.environments.park import Park
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_shared.protocol import Execute, Interpreter

# Major versions whose start of a program was read in their source, and tested.
TRIED = {"node": ("18", "20", "22")}
MEMORY_BYTES = 128 << 20  # with less, the started interpreter might already use all of it
_log = logging.getLogger("sandrun.executor")


def usable(names: Iterable[str], installed: Mapping[str, Interpreter]) -> list[str]:
    """Select the interpreters that can be started ahead here; log why another cannot."""
    found = []
    for name in names:
        version = installed[name].version if name in installed else ""
        if version.split(".")[0] in TRIED.get(name, ()):
            found.append(name)
        else:
            _log.error("%s is not started ahead: version %r, tested are %s", name, version, TRIED.get(name))
    return found


class StartedParks:
    """One park for each interpreter, as large as the number of times that its name is given."""

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
        """Begin to fill the parks."""
        for park in self._parks.values():
            park.open()

    def acquire(self, request: Execute) -> Sandbox | None:
        """Acquire a waiting sandbox in which this job would run as in any other, else None."""
        park = self._parks.get(request.interpreter)
        fits = request.warm and request.environment == "default" and request.gpu is None
        if park is None or not fits or request.limits.memory_bytes < MEMORY_BYTES:
            return None
        return park.acquire_waiting()

    def slot_freed(self) -> None:
        """Wake the parks that wait for a slot."""
        for park in self._parks.values():
            park.slot_freed()

    async def close(self) -> None:
        """Start no more and release the sandboxes that wait."""
        await asyncio.gather(*(park.close() for park in self._parks.values()))
