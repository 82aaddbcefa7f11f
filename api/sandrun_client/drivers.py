"""What does the effects of operations: one driver over any synchronous transport, and how both drivers step.

Drivers are as thin as they can be: everything that decides anything is in the operations. The transports are
in `http_httpx.py`, with the asynchronous driver, and in `http_plain.py`.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from sandrun_client.errors import UnexpectedAnswer
from sandrun_client.exchange import (
    Call,
    Close,
    Effect,
    Emit,
    Flow,
    Open,
    Progress,
    Read,
    Reply,
    Request,
    Send,
    Sleep,
)

T = TypeVar("T")

MAX_BODY = 256 << 20  # bytes of an answer that is kept in memory


class Body(bytearray):
    """An answer's bytes, bounded."""

    def add(self, piece: bytes) -> None:
        """Keep a piece. Raises UnexpectedAnswer."""
        self += piece
        if len(self) > MAX_BODY:
            raise UnexpectedAnswer(f"The answer has more than {MAX_BODY >> 20} MiB.")


class Steps(Generic[T]):
    """An operation, and what it gets next: an answer or an exception."""

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow
        self.answer: Any = None
        self.error: BaseException | None = None

    def next(self) -> Effect:
        """What it wants done next. Raises StopIteration with its result."""
        answer, error = self.answer, self.error
        self.answer = self.error = None
        return self._flow.send(answer) if error is None else self._flow.throw(error)


class Opened(Protocol):
    """An answer whose body is read piece by piece."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]

    def close(self) -> None:
        """Be done with it."""


class Transport(Protocol):
    """How the synchronous driver reaches a server."""

    def open(self, request: Request, progress: Progress | None) -> Opened:
        """Send a request, and read the head of its answer."""

    def mapped(self) -> AbstractContextManager[None]:
        """Turns the errors of what it is made of, in opening and in reading, into SandrunError."""


class SyncDriver:
    """Drives operations over a transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def run(self, flow: Flow[T]) -> T:
        """Do what the operation asks until it returns."""
        steps = self.iterate(flow)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                result: T = stop.value
                return result

    def iterate(self, flow: Flow[T]) -> Generator[Any, None, T]:
        """The items that the operation emits."""
        opened: list[Opened] = []
        steps = Steps(flow)
        try:
            while True:
                try:
                    effect = steps.next()
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                if isinstance(effect, Emit):
                    yield effect.value
                    continue
                try:
                    steps.answer = self._perform(effect, opened)
                except BaseException as error:  # the operation may want to tidy up
                    steps.error = error
        finally:
            flow.close()
            _close(opened)

    def _perform(self, effect: Effect, opened: list[Opened]) -> Any:
        with self._transport.mapped():
            match effect:
                case Send(request, progress):
                    answer = self._transport.open(request, progress)
                    try:
                        return Reply(answer.status, answer.headers, _read(answer.pieces))
                    finally:
                        answer.close()
                case Open(request):
                    _close(opened)
                    answer = self._transport.open(request, None)
                    opened.append(answer)
                    body = b"" if answer.status < 300 else _read(answer.pieces)
                    return Reply(answer.status, answer.headers, body)
                case Read():
                    return next(opened[0].pieces, b"") if opened else b""
                case Close():
                    _close(opened)
                case Sleep(seconds):
                    time.sleep(seconds)
                case Call(function):
                    return function()
        return None


def _close(opened: list[Opened]) -> None:
    while opened:
        opened.pop().close()


def _read(pieces: Iterator[bytes]) -> bytes:
    body = Body()
    for piece in pieces:
        body.add(piece)
    return bytes(body)
