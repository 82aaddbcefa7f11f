"""What a person sees: messages on standard error, colours and progress only where somebody looks."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, TextIO

import click

from sandrun_client.exchange import Progress, Waiting
from sandrun_client.models import TIMEOUTS, Stream
from sandrun_client.outcomes import FAULTS
from sandrun_shared.commandline import OWN_FAILURE, print_json

__all__ = ["OWN_FAILURE", "print_json"]

TIMED_OUT = 124
NOT_COMPILED = 1
BROKEN_PIPE = 128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 141
BAR_BYTES = 1 << 20  # transfers up to this size are over before a bar would help
CLEAR = "\x1b[H\x1b[2J"  # the screen, not what has scrolled off it

_quiet = False


class ReaderGone(Exception):
    """Nobody reads standard output any more; click would take a BrokenPipeError for its own to handle."""


def set_quiet(quiet: bool) -> None:
    """Leave out messages that are no errors."""
    global _quiet  # noqa: PLW0603 - one command, one process
    _quiet = quiet


def colours(stream: TextIO) -> bool:
    """Whether to use colours: on a terminal that can, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(text: str) -> None:
    """A message, unless --quiet."""
    if not _quiet:
        _print("sandrun:", text, dim=True)


def complain(text: str) -> None:
    """An error."""
    _print("sandrun:", text, fg="red", bold=True)


def say_waiting(waiting: Waiting) -> None:
    """What a wait is for and until when, unless --quiet."""
    say(f"{waiting}; Ctrl-C stops")


class Patience:
    """Says what is waited for once a second has passed without an end; nothing for an empty text."""

    SECONDS: ClassVar[float] = 1.0
    _current: ClassVar["threading.Timer | None"] = None

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> "Patience":
        if self._text:
            Patience.end()
            Patience._current = threading.Timer(self.SECONDS, say, [self._text])
            Patience._current.daemon = True
            Patience._current.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Patience.end()

    @classmethod
    def end(cls) -> None:
        """Say nothing any more: what was waited for is there."""
        if cls._current is not None:
            cls._current.cancel()
            cls._current = None


def _print(prefix: str, text: str, **style: Any) -> None:
    if colours(sys.stderr):
        prefix = click.style(prefix, **style)
    sys.stdout.flush()
    print(prefix, printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Text of a server or of a job without what would steer the terminal."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text.encode("utf-8", "backslashreplace").decode()
    )


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on a terminal, tabs and no head elsewhere."""
    clean = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in clean:
            print("\t".join(row))
        return
    widths = [max(len(row[index]) for row in [head, *clean]) for index in range(len(head))]
    for number, cells in enumerate([head, *clean]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        print(click.style(line, bold=True) if not number and colours(sys.stdout) else line)


def write(stream: Stream, data: bytes) -> None:
    """A program's output, untouched and at once. Raises BrokenPipeError."""
    target = sys.stdout if stream == "stdout" else sys.stderr
    target.flush()
    target.buffer.write(data)
    target.buffer.flush()


def clear() -> None:
    """An empty screen, if there is one."""
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        sys.stdout.write(CLEAR)
        sys.stdout.flush()


def size_text(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


class Transfer:
    """A progress bar for a transfer above 1 MB, on a terminal; otherwise it only counts."""

    def __init__(self, label: str, *, shown: bool) -> None:
        self._label = label
        self._shown = shown and not _quiet and sys.stderr.isatty()
        self._bar: Any = None
        self._drawn = 0
        self.complete = False

    def progress(self, done: int, total: int | None) -> None:
        """The callback."""
        self.complete = total is not None and done >= total
        if self._shown and self._bar is None and total is not None and total > BAR_BYTES:
            self._bar = click.progressbar(
                length=total, label=self._label, file=sys.stderr, color=colours(sys.stderr)
            )
            self._bar.__enter__()
        if self._bar is not None:
            self._bar.update(done - self._drawn)
            self._drawn = done

    def __enter__(self) -> "Transfer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)


@contextmanager
def transfer(label: str, *, shown: bool = True) -> Iterator[Progress]:
    """A callback that draws a bar."""
    with Transfer(label, shown=shown) as bar:
        yield bar.progress


def exit_status(verdict: str | None, exit_code: int | None) -> int:
    """What the command exits with for a job that ended like this."""
    if verdict in TIMEOUTS:
        return TIMED_OUT
    if verdict == "compile_error":
        return NOT_COMPILED
    if verdict in FAULTS or verdict == "cancelled" or exit_code is None:
        return OWN_FAILURE
    return exit_code
