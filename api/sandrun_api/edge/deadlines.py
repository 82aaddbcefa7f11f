"""A time limit of a connection."""

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """A limit that is moved more often than it expires, so its timer is only set again when it fires."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Expire in `seconds`."""
        self._move(self._loop.time() + seconds)

    def extend(self, seconds: float, most: float) -> None:
        """Expire `seconds` later than set, but in `most` seconds at the latest."""
        self._move(min(self._at + seconds, self._loop.time() + most))

    def clear(self) -> None:
        """Never expire."""
        self._at = math.inf

    def close(self) -> None:
        """Never expire, and release the timer."""
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
            self._expired()
        elif self._at < math.inf:
            self._move(self._at)
