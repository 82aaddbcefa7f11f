"""What can go wrong, as exceptions; a program that fails is a result instead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class SandrunError(Exception):
    """Base of everything that this package raises.

    ```
    SandrunError
    ├── ConnectionFailed      the server was not reached, or the connection broke, after all retries
    ├── Refused               the server answered with an error: .status .reason .errors .retry_after
    │   ├── InvalidRequest    400, 413, 415 and so on: mend the request
    │   ├── UnknownJob        404: deleted, expired, or never existed
    │   ├── Conflict          409: not finished yet, or an idempotency key of another job
    │   ├── RateLimited       429, longer than `max_retry_wait` or after all retries
    │   ├── Unavailable       502, 503, 504, likewise
    │   └── ServerFailed      any other 5xx
    ├── UnexpectedAnswer      no answer of a Sandrun server, or a download that was damaged
    ├── WaitTimeout           `wait` ran out of time; the job goes on: .job_id
    ├── InvalidUpload         a folder or file on this side that cannot be sent
    ├── JobFailed             `Result.check()`: the program failed: .result
    ├── InvalidTarget         a place on this side where a download cannot go
    └── ReceiptError          with `verify_with`: what came is not what that worker signed
    ```
    """


class ConnectionFailed(SandrunError):
    """The server at `host` was not reached; `sent` says whether it may have read the request."""

    def __init__(self, reason: str, *, sent: bool = True, host: str = "") -> None:
        super().__init__(reason)
        self.sent = sent
        self.host = host


@dataclass(frozen=True)
class Fault:
    """One fault in a document: a JSON pointer (RFC 6901) and what is wrong there."""

    pointer: str
    detail: str


class Refused(SandrunError):
    """An error the server answered with; retry_after is in seconds. Its text says when to come back."""

    def __init__(
        self,
        status: int,
        error: str,
        reason: str,
        *,
        retry_after: float | None = None,
        errors: Sequence[Fault] = (),
    ) -> None:
        text = reason or error
        if retry_after is not None:
            text += f"{'' if text.endswith('.') else '.'} Try again in {when(retry_after)}."
        super().__init__(text)
        self.status = status
        self.error = error
        self.reason = reason
        self.retry_after = retry_after
        self.errors = tuple(errors)


class InvalidRequest(Refused):
    """The request itself is wrong."""


class UnknownJob(Refused):
    """There is no such job, or no such file of it."""


class Conflict(Refused):
    """The job is not finished yet, or an idempotency key stands for another job."""


class RateLimited(Refused):
    """A quota of this address is used up; `retry_after` says for how long."""


class Unavailable(Refused):
    """The server, or what is behind it, cannot serve now."""


class ServerFailed(Refused):
    """The server broke while it served the request."""


class UnexpectedAnswer(SandrunError):
    """The answer is not one of Sandrun's, or not what it claims to be."""


class JobFailed(SandrunError):
    """The program did not end well; `result` has what it printed and how it ended."""

    def __init__(self, reason: str, result: Any) -> None:
        super().__init__(reason)
        self.result = result


class WaitTimeout(SandrunError):
    """The job was not finished in time; it goes on."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(f"The job {job_id} was not finished after {seconds:g} seconds; it goes on.")
        self.job_id = job_id


class InvalidUpload(SandrunError):
    """Something on this side cannot be sent."""


class InvalidTarget(SandrunError):
    """Something cannot be saved where it should go."""


class ReceiptError(SandrunError):
    """A receipt is missing, does not hold, or speaks of something else."""


def when(seconds: float) -> str:
    """ "59 s, at 14:03:22": how long it is until then, and the time of day there."""
    import datetime  # noqa: PLC0415 - most programs meet no error

    at = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=seconds)
    days = f" on {at:%Y-%m-%d}" if seconds >= 43200 else ""
    return f"{duration(seconds)}, at {at:%H:%M:%S}{days}"


def duration(seconds: float) -> str:
    """Seconds for people: 0.5 s, 59 s, 12 min, 2 h 5 min."""
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"
