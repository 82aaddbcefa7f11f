"""A group of event-loop timers that are cancelled together."""

import asyncio
from collections.abc import Callable


class Timers:
    """The timers of one object, which may set many of them in its life."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: set[asyncio.TimerHandle] = set()

    def __len__(self) -> int:
        return len(self._pending)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call action after some seconds."""

        def due() -> None:
            self._pending.discard(timer)
            action()

        timer = self._loop.call_later(seconds, due)
        self._pending.add(timer)

    def cancel(self) -> None:
        """Cancel every pending timer."""
        while self._pending:
            self._pending.pop().cancel()
