"""Callbacks of the event loop that belong together: each is forgotten once it ran, and all end at once."""

import asyncio
from collections.abc import Callable


class Timers:
    """The timers of one thing, which may set many of them in its life."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: set[asyncio.TimerHandle] = set()

    def __len__(self) -> int:
        return len(self._pending)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call action once that many seconds have passed."""

        def due() -> None:
            self._pending.discard(timer)
            action()

        timer = self._loop.call_later(seconds, due)
        self._pending.add(timer)

    def cancel(self) -> None:
        """Call none of those that are pending."""
        while self._pending:
            self._pending.pop().cancel()
