"""A time limit of a connection."""

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """A limit that moves more often than it passes, so its timer is only set anew when it fires."""

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Pass in so many seconds."""
        self._move(self._loop.time() + seconds)

    def extend(self, seconds: float, most: float) -> None:
        """Pass so much later, but in `most` seconds at the latest."""
        self._move(min(self._at + seconds, self._loop.time() + most))

    def clear(self) -> None:
        """Do not pass."""
        self._at = math.inf

    def close(self) -> None:
        """Do not pass, and hold nothing."""
        self._at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _move(self, at: float) -> None:
        self._at = at
        if self._timer is not None and self._timer.when() > at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._at <= self._loop.time():
            self._at = math.inf
            self._passed()
        elif self._at < math.inf:
            self._move(self._at)
