"""`sandrun run --watch`: runs again after each change, which ends a run that still goes on."""

import contextlib
import datetime
import signal
import threading
from pathlib import Path

import click

from sandrun_client.cli import failures, terminal
from sandrun_client.cli.options import Server
from sandrun_client.cli.session import Run
from sandrun_client.cli.signals import CHANGED, Interrupted, Signals
from sandrun_client.errors import SandrunError

END_SECONDS = 2.0  # for the thread that watches


class Changes:
    """A thread that watches a file, or a folder but for what is saved there and what editors leave."""

    def __init__(self, path: Path, output: Path | None) -> None:
        self._path = path
        self._output = output
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._running = False
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        import watchfiles  # noqa: PLC0415 - 60 ms that no other command needs

        wanted = self._path.resolve()
        saved = self._output.resolve() if self._output is not None else None
        usual = watchfiles.DefaultFilter()

        def counts(change: watchfiles.Change, name: str) -> bool:
            changed = Path(name)
            if not wanted.is_dir():
                return changed == wanted
            if saved is not None and saved != wanted and changed.is_relative_to(saved):
                return False
            return usual(change, name)

        # A file is watched by its folder: editors put a new one in its place.
        top, deep = (wanted, True) if wanted.is_dir() else (wanted.parent, False)
        for _ in watchfiles.watch(
            top,
            watch_filter=counts,
            stop_event=self._stop,
            rust_timeout=500,
            recursive=deep,
            raise_interrupt=False,
        ):
            self._changed.set()
            if self._running and CHANGED is not None:
                signal.pthread_kill(self._main, CHANGED)

    def running(self, yes: bool) -> None:
        """Whether a change is to interrupt the main thread."""
        self._running = yes

    @property
    def pending(self) -> bool:
        """Whether there was a change since the last `wait`."""
        return self._changed.is_set()

    def wait(self) -> None:
        """Until there is a change."""
        self._changed.wait()
        self._changed.clear()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(END_SECONDS)


def watch(work: Run, server: Server, path: Path) -> int:
    """Run, and again after each change, until a signal; 128+n for signal n."""
    changes = Changes(path, work.folder)
    with contextlib.closing(changes), Signals(*([CHANGED] if CHANGED is not None else [])) as signals:
        while True:
            try:
                terminal.clear()
                terminal.say(f"{datetime.datetime.now():%H:%M:%S} running {work.program.title}")
                with contextlib.suppress(_Changed):
                    _one(work, server, signals, changes)
                if not changes.pending:
                    terminal.say("waiting for a change")
                changes.wait()
            except Interrupted as error:
                if error.number != CHANGED:  # a change just when the run had ended: the next one begins
                    return 128 + error.number
            except KeyboardInterrupt:
                return 128 + signal.SIGINT


class _Changed(Exception):
    """A run ended because something changed."""


def _one(work: Run, server: Server, signals: Signals, changes: Changes) -> None:
    try:
        with server.driver() as driver:
            changes.running(True)
            try:
                if changes.pending:
                    raise _Changed
                status = driver.run(work.once(server.policy(), signals))
            finally:
                changes.running(False)
    except Interrupted as error:
        if error.number != CHANGED:
            raise
        raise _Changed from None
    except (SandrunError, click.UsageError, OSError) as error:
        # A file that is just being written again, a server that restarts: the next change may mend it.
        if isinstance(error, BrokenPipeError):
            raise
        failures.tell(error, as_json=False)
    else:
        terminal.say(f"exit status {status}")
