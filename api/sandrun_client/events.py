"""Server-sent events as they arrive, in pieces of any size (HTML Living Standard, 9.2)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sandrun_client.errors import UnexpectedAnswer

MAX_EVENT = 256 << 20  # bytes; the last event of a job holds its receipt with every output


@dataclass
class Event:
    """One event; id is the sequence, data is JSON."""

    name: str = "message"
    id: int | None = None
    data: dict[str, Any] = field(default_factory=dict)


class EventParser:
    """Gives the events of a stream; retry_seconds is how long a reader shall wait before it comes back."""

    def __init__(self) -> None:
        self.retry_seconds = 1.0
        self._pieces: list[bytes] = []
        self._held = 0
        self._name = "message"
        self._id: int | None = None
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete. Raises UnexpectedAnswer."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            text = b"".join([*self._pieces, line]).removesuffix(b"\r").decode("utf-8", "replace")
            self._pieces.clear()
            self._held = 0
            if text:
                self._field(text)
            else:
                yield from self._dispatch()
        if rest:
            self._pieces.append(rest)
            self._held += len(rest)
            if self._held > MAX_EVENT:
                raise UnexpectedAnswer(f"An event has more than {MAX_EVENT >> 20} MiB.")

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._name = value
            case "id" if value.isascii() and value.isdigit():
                self._id = int(value)
            case "retry" if value.isascii() and value.isdigit():
                self.retry_seconds = min(int(value[:6]) / 1000, 60.0)
            case _:
                pass  # a comment, or a field of another day

    def _dispatch(self) -> Iterator[Event]:
        text, name = "\n".join(self._data), self._name
        self._data.clear()
        self._name = "message"
        if not text:
            return
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise UnexpectedAnswer("An event of the server is no JSON object.")
        yield Event(name, self._id, data)
