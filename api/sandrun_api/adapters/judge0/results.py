"""What became of a submission, in Judge0's words and field by field."""

import hashlib
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandrun_api.adapters.foreign import run_cpu_seconds
from sandrun_api.adapters.judge0.submission import Submission
from sandrun_api.edge.json_pieces import Chunks, Text
from sandrun_api.jobs.logs import STDERR, STDOUT
from sandrun_api.jobs.model import Job, State
from sandrun_shared.jobs import Outcome, Verdict

STATUSES = {
    1: "In Queue",
    2: "Processing",
    3: "Accepted",
    4: "Wrong Answer",
    5: "Time Limit Exceeded",
    6: "Compilation Error",
    7: "Runtime Error (SIGSEGV)",
    8: "Runtime Error (SIGXFSZ)",
    9: "Runtime Error (SIGFPE)",
    10: "Runtime Error (SIGABRT)",
    11: "Runtime Error (NZEC)",
    12: "Runtime Error (Other)",
    13: "Internal Error",
    14: "Exec Format Error",
}
QUEUED, PROCESSING, ACCEPTED, WRONG, TIMEOUT, NOT_COMPILED, FILE_SIZE, NONZERO, OTHER, INTERNAL = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    11,
    12,
    13,
)
UNFINISHED = frozenset({QUEUED, PROCESSING})
_BY_SIGNAL: dict[int, int] = {
    signal.SIGSEGV: 7,
    signal.SIGXFSZ: FILE_SIZE,
    signal.SIGFPE: 9,
    signal.SIGABRT: 10,
}
_BLANKS = b"\0\t\n\v\f\r "

DEFAULT_FIELDS = ("stdout", "time", "memory", "stderr", "token", "compile_output", "message", "status")
TEXTS = frozenset(
    {"source_code", "stdin", "expected_output", "stdout", "stderr", "compile_output", "message"}
)
_NUMBERS = {
    "number_of_runs": int,
    "cpu_time_limit": str,
    "cpu_extra_time": str,
    "wall_time_limit": str,
    "memory_limit": int,
    "stack_limit": int,
    "max_processes_and_or_threads": int,
    "max_file_size": int,
}
_NEVER = {  # what no submission here has
    "callback_url": None,
    "compiler_options": None,
    "enable_network": False,
    "enable_per_process_and_thread_memory_limit": False,
    "enable_per_process_and_thread_time_limit": False,
}


class NotText(Exception):
    """A field holds bytes that are not UTF-8, and Base64 was not asked for."""


@dataclass(frozen=True)
class Ending:
    """How a job ended."""

    status: int
    message: str | None = None
    signal: int | None = None


_ENDINGS = {
    Verdict.compile_error: Ending(NOT_COMPILED),
    Verdict.wall_time_limit: Ending(TIMEOUT, "Time limit exceeded (wall clock)"),
    Verdict.cpu_time_limit: Ending(TIMEOUT, "Time limit exceeded"),
    Verdict.memory_limit: Ending(OTHER, "Memory limit exceeded", signal.SIGKILL),
    Verdict.output_limit: Ending(FILE_SIZE, "Output limit exceeded", signal.SIGXFSZ),
    Verdict.disk_limit: Ending(FILE_SIZE, "Disk limit exceeded", signal.SIGXFSZ),
}


def ending_of(job: Job, submission: Submission) -> Ending:
    """Judge0's status of a job."""
    outcome = job.outcome
    if outcome is None:
        return Ending(QUEUED if job.state is State.queued else PROCESSING)
    if outcome.verdict in _ENDINGS:
        return _ENDINGS[outcome.verdict]
    return _lateness(outcome, submission) or _of_exit(outcome, lambda: _is_right(job, submission))


def _of_exit(outcome: Outcome, is_right: Callable[[], bool]) -> Ending:
    if outcome.verdict is Verdict.ok:
        return Ending(ACCEPTED if is_right() else WRONG)
    if outcome.exit_code is None:
        return Ending(INTERNAL, outcome.detail or outcome.verdict.value)
    if outcome.signal:
        message = f"Caught fatal signal {outcome.signal}"
        return Ending(_BY_SIGNAL.get(outcome.signal, OTHER), message, outcome.signal)
    return Ending(NONZERO, f"Exited with error status {outcome.exit_code}")


def _lateness(outcome: Outcome, submission: Submission) -> Ending | None:
    """For a compiled program: the job had more time, for its compiler, than the program may take."""
    if not submission.language.is_compiled or outcome.exit_code is None:
        return None
    if run_cpu_seconds(outcome) > submission.numbers["cpu_time_limit"]:
        return _ENDINGS[Verdict.cpu_time_limit]
    if outcome.wall_seconds > submission.numbers["wall_time_limit"]:
        return _ENDINGS[Verdict.wall_time_limit]
    return None


def _is_right(job: Job, submission: Submission) -> bool:
    if submission.is_right is None:  # compared once, however often somebody asks
        expected = submission.expected_output
        submission.is_right = expected is None or (
            comparable(Chunks.of(expected)) == comparable(_stdout(job, submission))
        )
    return submission.is_right


def comparable(text: Chunks) -> bytes:
    """What two outputs are compared by: a digest, without blanks at lines' ends and empty last lines."""
    digest = hashlib.sha256()
    blank = b""  # what is dropped at the end of a line and of the text
    for chunk in text.chunks():
        data = blank + chunk
        printed = data.rstrip(_BLANKS)
        blank = data[len(printed) :]
        digest.update(b"\n".join(line.rstrip(_BLANKS) for line in printed.split(b"\n")))
    return digest.digest()


def _stdout(job: Job, submission: Submission) -> Chunks:
    return job.logs.bytes_of(None if submission.redirect_stderr_to_stdout else STDOUT)


def _stderr(job: Job, submission: Submission) -> Chunks | None:
    return None if submission.redirect_stderr_to_stdout else job.logs.bytes_of(STDERR) or None


def _attributes(token: str, job: Job, submission: Submission) -> dict[str, Callable[[], Any]]:
    """Every field by its name; texts are their bytes."""
    ending = ending_of(job, submission)
    failed = ending.status == NOT_COMPILED
    outcome = job.outcome
    ran = outcome if not failed else None
    killed = ending.signal is not None
    table: dict[str, Callable[[], Any]] = {
        "token": lambda: token,
        "status": lambda: {"id": ending.status, "description": STATUSES[ending.status]},
        "status_id": lambda: ending.status,
        "language": submission.language.brief,
        "language_id": lambda: submission.language.number,
        "source_code": lambda: _chunks(submission.source_code or None),
        "stdin": lambda: _chunks(submission.stdin),
        "expected_output": lambda: _chunks(submission.expected_output),
        "additional_files": lambda: _base64(_chunks(submission.additional_files)),
        "stdout": lambda: (_stdout(job, submission) or None) if ran else None,
        "stderr": lambda: _stderr(job, submission) if ran else None,
        "compile_output": lambda: job.logs.bytes_of() or None if failed else None,
        "message": lambda: _chunks(None if ending.message is None else ending.message.encode()),
        "time": lambda: f"{run_cpu_seconds(ran):.3f}" if ran else None,
        "wall_time": lambda: f"{ran.wall_seconds:.3f}" if ran else None,
        "memory": lambda: ran.memory_peak_bytes >> 10 if ran else None,
        "exit_code": lambda: outcome.exit_code if outcome and not killed else None,
        "exit_signal": lambda: ending.signal,
        "created_at": lambda: _moment(job.submitted_at),
        "finished_at": lambda: None if job.finished_at is None else _moment(job.finished_at),
        "redirect_stderr_to_stdout": lambda: submission.redirect_stderr_to_stdout,
    }
    return table


FIELDS = frozenset(
    {
        *("token", "status", "status_id", "language", "language_id", "additional_files", "time", "wall_time"),
        *("memory", "exit_code", "exit_signal", "created_at", "finished_at", "redirect_stderr_to_stdout"),
        *("command_line_arguments",),
        *TEXTS,
        *_NUMBERS,
        *_NEVER,
    }
)


def serialize(
    token: str, job: Job, submission: Submission, fields: Iterable[str], *, encoded: bool
) -> dict[str, Any]:
    """These fields of a submission as a document, its texts in Base64 if encoded. Raises NotText."""
    attributes = _attributes(token, job, submission)
    body: dict[str, Any] = {}
    for name in fields:
        if name in attributes:
            value = attributes[name]()
        elif name in _NUMBERS:
            value = _NUMBERS[name](submission.numbers[name])
        else:
            value = submission.plain.get(name, _NEVER.get(name))
        if name in TEXTS and value is not None:
            value = _base64(value) if encoded else _utf8(value)
        body[name] = value
    return body


def _chunks(data: bytes | None) -> Chunks | None:
    return None if data is None else Chunks.of(data)


def _base64(data: Chunks | None) -> Text | None:
    return None if data is None else data.base64


def _utf8(data: Chunks) -> Text:
    if not data.is_utf8:
        raise NotText
    return data.text


def _moment(seconds: float) -> str:
    """A moment of the monotonic clock, as Judge0 writes dates."""
    moment = datetime.fromtimestamp(time.time() - time.monotonic() + seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
