"""Reads what a job prints, up to a limit, and passes it on in the order in which it was read."""

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack

from sandrun_shared.framing import CHUNK
from sandrun_shared.protocol import Output
from sandrun_shared.sealing import LOG_OVERHEAD, LogSealer

FLUSH_SECONDS = 0.005  # short jobs end within this, so their output travels in the last message
LITTLE_READS, LITTLE_BYTES = 4, 1024  # small reads between two messages, and what is small
REST_SECONDS = 0.002  # between two reads of output above the limit: 32 MB a second
STDOUT, STDERR = 1, 2
_AROUND = 64  # bytes; an upper bound of a message's overhead


class LogPump:
    """Reads the two pipes of one job; holds at most one message, and only counts output above the limit."""

    def __init__(
        self,
        limit_bytes: int,
        owner: int,
        deliver: Callable[[Output], bool],
        *,
        sealer: LogSealer | None = None,
    ) -> None:
        """owner: the uid that may reopen the pipes, for example as /dev/stdout.

        deliver: sends one message and returns whether there is room for more. With a sealer, output leaves as
        sealed lines on stdout, which also stay within the limit. Raises OSError if no pipe can be made.
        """
        self._loop = asyncio.get_running_loop()
        self._sealer = sealer
        self._overhead = 0 if sealer is None else LOG_OVERHEAD
        self._room = limit_bytes if sealer is None else limit_bytes // 4 * 3 - LOG_OVERHEAD
        self._deliver = deliver
        self._read_fds: dict[int, int] = {}
        self.write_fds: list[int] = []
        self._pending: list[Output] = []
        self._pending_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._reading: set[int] = set()
        self._reads = 0  # small reads since the last message
        self._gathering = False
        self.counts = {STDOUT: 0, STDERR: 0}
        self.truncated = False
        with ExitStack() as undo:
            undo.callback(self.close)
            for stream in (STDOUT, STDERR):
                self._read_fds[stream], write_fd = os.pipe2(os.O_CLOEXEC)
                self.write_fds.append(write_fd)
                os.set_blocking(self._read_fds[stream], False)
                os.fchown(write_fd, owner, owner)
            undo.pop_all()

    def start(self) -> None:
        """Close our copies of the write ends, which the job has by now, and begin to read."""
        self._close_write_ends()
        self.resume()

    def resume(self) -> None:
        """Resume reading after the receiver had no room."""
        for stream, fd in self._read_fds.items():
            if stream not in self._reading:
                self._reading.add(stream)
                self._loop.add_reader(fd, self._readable, stream, fd)

    def _pause(self) -> None:
        for stream in self._reading:
            self._loop.remove_reader(self._read_fds[stream])
        self._reading.clear()
        self._gathering = False
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _readable(self, stream: int, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._reading.discard(stream)
            self._loop.remove_reader(fd)
            os.close(self._read_fds.pop(stream))
            return
        self._take(stream, data)
        if self._room <= self._overhead:
            self._rest(stream, fd)
        if self._pending_bytes >= CHUNK // 2:
            self._flush()
        elif self._pending:
            self._timer = self._timer or self._loop.call_later(FLUSH_SECONDS, self._flush)
            self._reads += len(data) < LITTLE_BYTES
            if self._reads >= LITTLE_READS:
                self._gather()

    def _gather(self) -> None:
        """Stop reading until the next message: a job that writes byte by byte would wake us for each.

        The first reads are exempt, so that occasional output of both pipes keeps its order.
        """
        self._pause()
        self._gathering = True

    def _rest(self, stream: int, fd: int) -> None:
        """Pause reading output that is only counted, because a flood would take the daemon's time."""
        self._reading.discard(stream)
        self._loop.remove_reader(fd)
        if self._resting is None:
            self._resting = self._loop.call_later(REST_SECONDS, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self.resume()

    def _take(self, stream: int, data: bytes) -> None:
        self.counts[stream] += len(data)
        last = self._pending[-1] if self._pending else None
        if last is not None and (last.stream != stream or len(last.data) + len(data) > CHUNK):
            last = None
        overhead = self._overhead if last is None else 0
        kept = data[: max(self._room - overhead, 0)]
        self.truncated = self.truncated or len(kept) < len(data)
        if not kept:
            return
        self._room -= len(kept) + overhead
        if last is not None:
            self._pending[-1] = Output(stream, last.data + kept)
        else:
            self._pending.append(Output(stream, kept))
            self._pending_bytes += _AROUND
        self._pending_bytes += len(kept)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._reads = 0
        room = True
        for output in self._take_pending():
            room = self._deliver(output)
        if not room:
            self._pause()
        elif self._gathering:
            self._gathering = False
            self.resume()

    def _take_pending(self, *, last: bool = False) -> list[Output]:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if self._sealer is None:
            return pending
        lines = self._sealer.lines([(output.stream, output.data) for output in pending], last=last)
        return [Output(STDOUT, line) for line in lines]

    def drain(self) -> tuple[Output, ...]:
        """Read what the dead job left in the pipes and close them; returns the output not yet delivered."""
        self._pause()
        for stream, fd in list(self._read_fds.items()):
            while data := self._read_rest(fd):
                self._take(stream, data)
                if self._pending_bytes >= CHUNK // 2:
                    self._flush()
        pending = tuple(self._take_pending(last=True))
        self.close()
        return pending

    @staticmethod
    def _read_rest(fd: int) -> bytes:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            return b""  # a process outside the sandbox holds the pipe; do not wait for it

    def close(self) -> None:
        """Close everything; undrained output is lost."""
        self._pause()
        if self._timer is not None:
            self._timer.cancel()
        self._close_write_ends()
        while self._read_fds:
            os.close(self._read_fds.popitem()[1])

    def _close_write_ends(self) -> None:
        while self.write_fds:
            os.close(self.write_fds.pop())
