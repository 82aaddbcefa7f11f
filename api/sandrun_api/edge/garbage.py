"""Reference cycles, such as an exception and its frames, keep what a client sent until they are collected."""

import asyncio
import gc

COLLECT_SECONDS = 5.0


class Collector:
    """Collects the garbage every few seconds, however little happens, as long as its context is open."""

    def __init__(self, pause_seconds: float = COLLECT_SECONDS) -> None:
        self._pause_seconds = pause_seconds
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "Collector":
        self._next()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause_seconds, self._collect)

    def _collect(self) -> None:
        gc.collect()
        self._next()


def settle() -> None:
    """What was loaded so far stays: leave it out of every collection, which makes them short."""
    gc.collect()
    gc.freeze()
