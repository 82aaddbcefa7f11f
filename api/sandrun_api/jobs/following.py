"""One reader of a job's logs: texts in the order in which they were read, resumable after any of them.

A text's sequence is the number of bytes, of both streams, up to its end. The decoder of a stream is a
function of the stream's bytes alone, so a reader that comes back with a sequence gets exactly what
follows: the first bytes of a character that is still incomplete there are read again.
"""

import codecs
from collections.abc import Iterator
from typing import NamedTuple

from sandrun_api.jobs.logs import STDERR, STDOUT, JobLogs

FINISHED = 3  # the sequence of the last event is the logs' size and this; 1 and 2 are broken characters


class Text(NamedTuple):
    """What one stream printed, up to the sequence."""

    sequence: int
    stream: int
    text: str


class Follower:
    """Follows the logs after a sequence. Raises ValueError for one that nobody can have been given."""

    def __init__(self, logs: JobLogs, after: int = 0) -> None:
        if not 0 <= after <= logs.size + (FINISHED if logs.closed else 0):
            raise ValueError("no such sequence")
        self._logs = logs
        self._position = min(after, logs.size)
        self._flushed = after - self._position
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {STDOUT: decoder("replace"), STDERR: decoder("replace")}
        for stream, unfinished in self._decoders.items():
            unfinished.decode(logs.unfinished(stream, self._position))

    @property
    def last_sequence(self) -> int:
        """The sequence of the event that says how the job ended."""
        return self._logs.size + FINISHED

    @property
    def has_all(self) -> bool:
        """Whether everything was taken, the event of the end included."""
        return self._flushed >= FINISHED

    @property
    def is_cut(self) -> bool:
        """Whether the logs were forgotten before they were read to their end."""
        return self._logs.closed and self._position != self._logs.size

    async def wait(self) -> bool:
        """Until there is something to take; False when there will be nothing more."""
        more = await self._logs.more(self._position)
        return more or (self._flushed < FINISHED - 1 and not self.is_cut)

    def take(self) -> Iterator[Text]:
        """What is there; it may grow while it is taken."""
        for start, stream, data in self._logs.pieces(self._position):
            self._position = start + len(data)
            text = self._decoders[stream].decode(data)
            if text:
                yield Text(self._position, stream, text)
        if not self._logs.closed or self._position != self._logs.size:
            return
        for number, stream in enumerate((STDOUT, STDERR), 1):
            if self._flushed < number:
                self._flushed = number
                text = self._decoders[stream].decode(b"", True)
                if text:
                    yield Text(self._position + number, stream, text)
