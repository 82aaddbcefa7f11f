"""Signals that end a command: they become an exception at the point where it waits, so that it tidies up."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

GRACE_SECONDS = 5.0  # for what may be finished first, and for tidying up
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
CHANGED = getattr(signal, "SIGUSR1", None)  # what `--watch` interrupts a run with


class Interrupted(BaseException):
    """A signal asked for the end, or for the end of this run."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """The handlers, while the context lasts; a second signal gives up tidying up as well."""

    def __init__(self, *more: int) -> None:
        self._numbers = [*(getattr(signal, name) for name in _ENDING if hasattr(signal, name)), *more]
        self._before: dict[int, Any] = {}
        self._ending: int | None = None
        self._alarm: threading.Timer | None = None
        self.pending: int | None = None
        self.deferring: Callable[[], bool] = lambda: False

    def __enter__(self) -> "Signals":
        for number in self._numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == CHANGED and self._ending is not None:
            return
        if number != CHANGED and self._ending is not None:  # asked twice: what is being tidied up is left
            raise KeyboardInterrupt
        if number != CHANGED:
            self._ending = number
        if self.deferring():
            self.pending = number
            self._alarm = threading.Timer(GRACE_SECONDS, signal.pthread_kill, [threading.get_ident(), number])
            self._alarm.daemon = True
            self._alarm.start()
            return
        raise Interrupted(number)

    def check(self) -> None:
        """Raise Interrupted for a signal that was deferred."""
        if (number := self.pending) is not None:
            self.pending = None
            if self._alarm is not None:
                self._alarm.cancel()
            raise Interrupted(number)


def interruptible(main: Callable[[Signals], int]) -> int:
    """What the function gives; 128+n if signal n ended it."""
    with Signals() as signals:
        try:
            return main(signals)
        except Interrupted as error:
            return 128 + error.number
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
