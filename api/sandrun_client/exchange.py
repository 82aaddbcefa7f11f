"""Requests without a network: what an operation asks for, step by step, and when it is asked again.

An operation is a generator of effects. It yields what it wants done, a driver does it (`drivers.py`, once
with a synchronous and once with an asynchronous HTTP client) and sends the answer back in. So there is one
implementation of everything, and it can be tested without a server.
"""

import json
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from sandrun_client import errors

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if known
T = TypeVar("T")

BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 8.0


@dataclass(frozen=True)
class Upload:
    """A multipart body: one file and the manifest."""

    name: str
    file: IO[bytes]
    manifest: Mapping[str, Any] | None


@dataclass(frozen=True)
class Request:
    """One request; read_seconds is how long the server may stay silent (None: the client's time-out)."""

    method: str
    path: str
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    upload: Upload | None = None
    read_seconds: float | None = None


@dataclass(frozen=True)
class Reply:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    def document(self) -> dict[str, Any]:
        """The JSON object in the body. Raises UnexpectedAnswer."""
        try:
            document = json.loads(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise errors.UnexpectedAnswer("The server's answer is no JSON object: it is no Sandrun server.")
        return document


@dataclass(frozen=True)
class Send:
    """Send a request and read the whole answer: gives a Reply."""

    request: Request
    progress: Progress | None = None  # of the upload


@dataclass(frozen=True)
class Open:
    """Send a request whose answer is then read piece by piece: gives a Reply, with a body for an error."""

    request: Request


@dataclass(frozen=True)
class Read:
    """The next bytes of the opened answer; none at its end."""


@dataclass(frozen=True)
class Close:
    """Be done with the opened answer."""


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Call:
    """Call something that blocks."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Emit:
    """Hand an item to the caller that iterates over the operation."""

    value: Any


@dataclass(frozen=True)
class Waiting:
    """A wait that begins now: how many seconds it takes, and what for."""

    seconds: float
    reason: str

    def __str__(self) -> str:
        return f"waiting {errors.when(self.seconds)}: {self.reason}"


def log_waiting(waiting: Waiting) -> None:
    """Log a wait, as a warning if it takes a second or more: Python prints those on standard error."""
    import logging  # noqa: PLC0415 - slow to load, and most programs never wait

    level = logging.WARNING if waiting.seconds >= 1 else logging.INFO
    logging.getLogger("sandrun_client").log(level, "%s", waiting)


Effect = Send | Open | Read | Close | Sleep | Call | Emit
Flow = Generator[Effect, Any, T]


def _random() -> float:
    import random  # noqa: PLC0415 - slow to load, and only further attempts need it

    return random.random()  # noqa: S311


@dataclass(frozen=True)
class Policy:
    """How patient and how trusting a client is; max_wait_seconds is the longest Retry-After it obeys.

    on_wait is told of every wait before another attempt.
    """

    retries: int = 4
    max_wait_seconds: float = 60.0
    verify_with: str | None = None
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = _random
    on_wait: Callable[[Waiting], None] = log_waiting


def ask(policy: Policy, request: Request, *, repeatable: bool | None = None) -> Flow[Reply]:
    """Send and read, as often as the policy allows. Raises SandrunError."""
    return (yield from exchange(policy, Send(request), repeatable=repeatable))


def exchange(policy: Policy, effect: Send | Open, *, repeatable: bool | None = None) -> Flow[Reply]:
    """The answer, below 300, after as many attempts as the policy allows. Raises SandrunError.

    repeatable says that serving the request twice does no harm (default: everything but POST). The others
    are sent again only when the server has certainly not served them.
    """
    if repeatable is None:
        repeatable = effect.request.method != "POST"
    attempt = 0
    while True:
        attempt += 1
        failure: errors.SandrunError
        try:
            reply: Reply = yield effect
        except errors.ConnectionFailed as error:
            if error.sent and not repeatable:
                raise
            failure, delay = error, _backoff(policy, attempt)
        else:
            if reply.status < 300:
                return reply
            refusal = refusal_of(reply)
            again = reply.status in (429, 503) or (repeatable and reply.status in (502, 504))
            wait = _backoff(policy, attempt) if refusal.retry_after is None else refusal.retry_after
            if not again or wait > policy.max_wait_seconds:
                raise refusal
            failure, delay = refusal, wait
        if attempt > policy.retries:
            raise failure
        reason = failure.reason if isinstance(failure, errors.Refused) else str(failure)
        policy.on_wait(Waiting(delay, reason))
        yield Sleep(delay)


def refusal_of(reply: Reply) -> errors.Refused:
    """The exception that an answer of 300 or above stands for."""
    try:
        document = reply.document()
    except errors.UnexpectedAnswer:
        document = {}
    faults = document.get("errors")
    pairs = [item for item in faults if isinstance(item, dict)] if isinstance(faults, list) else []
    reason = document.get("reason")
    if 300 <= reply.status < 400:
        where = reply.headers.get("location", "another address")
        reason = f"The server sends on to {where}: name that address as SANDRUN_URL."
    return _kind_of(reply.status)(
        reply.status,
        str(document.get("error") or f"HTTP {reply.status}"),
        str(reason or f"The server answered with HTTP {reply.status}."),
        retry_after=_retry_after(reply),
        errors=[errors.Fault(str(item.get("pointer")), str(item.get("detail"))) for item in pairs],
    )


def _kind_of(status: int) -> type[errors.Refused]:
    known = {404: errors.UnknownJob, 409: errors.Conflict, 429: errors.RateLimited}
    if status in known:
        return known[status]
    if status in (502, 503, 504):
        return errors.Unavailable
    return errors.ServerFailed if status >= 500 else errors.InvalidRequest


def _retry_after(reply: Reply) -> float | None:
    """Seconds: a number or a date (RFC 9110, 10.2.3)."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    import email.utils  # noqa: PLC0415 - slow to load, and rare

    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, at.timestamp() - time.time())


def _backoff(policy: Policy, attempt: int) -> float:
    most: float = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (attempt - 1))
    return most * (0.5 + policy.jitter() / 2)
