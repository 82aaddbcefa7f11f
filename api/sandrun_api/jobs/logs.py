"""What a job printed: bytes in the order they came, bounded, and followed by any number of readers.

A reader holds a position and nothing else, so a slow one costs no memory.
"""

import array
import asyncio
import bisect
import codecs
from collections.abc import Iterator

from sandrun_api.admission.budget import Reservation
from sandrun_api.edge.json_pieces import Chunks

STDOUT = 1
STDERR = 2
PIECE = 16 << 10  # bytes handed to a reader at once: what each of many readers may make us hold


class JobLogs:
    """Both streams of one job, interleaved. Positions count bytes over both, from the start."""

    def __init__(self, limit_bytes: int, reservation: Reservation) -> None:
        self._limit = limit_bytes
        self._reservation = reservation
        self._data = bytearray()
        # Starts of runs of one stream; an int each, since a job may change streams at every byte.
        self._starts = array.array("Q")
        self._streams = bytearray()
        self._waiters: set[asyncio.Future[None]] = set()
        self.seen_bytes = {STDOUT: 0, STDERR: 0}
        self.kept_bytes = {STDOUT: 0, STDERR: 0}
        self.truncated = False
        self._forgotten: int | None = None  # how much there was
        self.closed = False

    @property
    def size(self) -> int:
        """Bytes kept of both streams."""
        return len(self._data) if self._forgotten is None else self._forgotten

    def append(self, stream: int, data: bytes) -> None:
        """Keep what fits, count the rest. Raises ValueError for a stream that is neither 1 nor 2."""
        if stream not in self.seen_bytes:
            raise ValueError("no such stream")
        if self._forgotten is not None:
            return
        self.seen_bytes[stream] += len(data)
        kept = data[: self._limit - len(self._data)]
        self.truncated |= len(kept) < len(data)
        if not kept:
            return
        cost = len(kept)
        self.kept_bytes[stream] += cost
        if not self._streams or self._streams[-1] != stream:
            self._starts.append(len(self._data))
            self._streams.append(stream)
            cost += self._starts.itemsize + 1
        self._data += kept
        self._reservation.charge(cost)
        self._wake()

    def close(self) -> None:
        """Nothing more will come."""
        self.closed = True
        self._wake()

    def withdraw(self) -> None:
        """A reader that follows gets no more; the bytes stay for what reads `bytes_of`."""
        if self._forgotten is None:
            self._forgotten = len(self._data)
        self.close()

    def forget(self) -> None:
        """Overwrite everything; a reader that is behind gets no more."""
        self.withdraw()
        for start in range(0, len(self._data), PIECE):
            end = min(start + PIECE, len(self._data))
            self._data[start:end] = bytes(end - start)
        self._data.clear()

    async def more(self, position: int) -> bool:
        """Wait for bytes beyond position; False when there will be none."""
        while self.size <= position and not self.closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        return self._forgotten is None and self.size > position

    def pieces(self, start: int, end: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """(position, stream, bytes) from start to end, each of one stream and at most PIECE long.

        Nothing once the logs were withdrawn.
        """
        return iter(()) if self._forgotten is not None else self._pieces(start, end)

    def _pieces(self, start: int, end: int | None) -> Iterator[tuple[int, int, bytes]]:
        end = len(self._data) if end is None else min(end, len(self._data))
        run = max(0, bisect.bisect_right(self._starts, start) - 1)
        while start < end:
            run_end = self._starts[run + 1] if run + 1 < len(self._starts) else len(self._data)
            stop = min(run_end, end, start + PIECE)
            yield start, self._streams[run], self._copy(start, stop)
            start = stop
            run += stop == run_end

    def unfinished(self, stream: int, end: int) -> bytes:
        """The bytes of a stream before a position that begin a UTF-8 character and do not complete it."""
        tail = b""
        run = bisect.bisect_left(self._starts, end) - 1
        while run >= 0 and len(tail) < 3:  # of every two runs one is the stream's
            if self._streams[run] == stream:
                run_start = self._starts[run]
                tail = self._copy(max(run_start, end - 3 + len(tail)), end) + tail
            end = self._starts[run]
            run -= 1
        for length in range(1, len(tail) + 1):
            lead = tail[-length]
            if lead >= 0xC0:  # the last one; what follows it is complete or not, as the decoder sees it
                return tail[-length:]
            if lead < 0x80:
                break
        return b""

    def bytes_of(self, stream: int | None = None, start: int = 0, end: int | None = None) -> Chunks:
        """What one stream, or both as they came, printed between two positions, to be read piece by piece.

        The reader holds a lease of the job: then the bytes stay, though the logs were withdrawn.
        """
        end = self.size if end is None else end
        return Chunks(
            lambda: (data for _, which, data in self._pieces(start, end) if stream in (None, which))
        )

    def tail(self, stream: int, size: int) -> bytes:
        """The last bytes of one stream, `size` at most; takes time in proportion to their number."""
        parts: list[bytes] = []
        run, end = len(self._starts) - 1, len(self._data)
        while run >= 0 and size > 0:  # of every two runs one is the stream's
            start = self._starts[run]
            if self._streams[run] == stream:
                parts.append(self._copy(max(start, end - size), end))
                size -= len(parts[-1])
            run, end = run - 1, start
        return b"".join(reversed(parts))

    def combined(self, start: int = 0) -> bytes:
        """Both streams as they came."""
        return self._copy(start, len(self._data))

    def split(self, start: int, end: int) -> tuple[bytes, bytes]:
        """stdout and stderr between two positions."""
        streams = {STDOUT: bytearray(), STDERR: bytearray()}
        for _, stream, data in self.pieces(start, end):
            streams[stream] += data
        return bytes(streams[STDOUT]), bytes(streams[STDERR])

    def text_end(self) -> int:
        """Where to stop reading so that the last character is whole; the end, once nothing more comes."""
        size = len(self._data)
        if self.closed or not size:
            return size
        # The decoder of the live texts judges, so that no text is sent of bytes that are held back here.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(self._copy(max(self._starts[-1], size - 3), size))
        return size - len(decoder.getstate()[0])

    def _copy(self, start: int, end: int) -> bytes:
        # A slice of the bytearray would be a copy already. The view is released at once: while one exists,
        # nothing can be appended.
        with memoryview(self._data) as view:
            return bytes(view[start:end])

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
