"""What is missing of a job's output, as every answer that carries output or says how a job ended tells it.

`Sandrun-Truncated` is a Dictionary of RFC 9651: the streams of which bytes are missing, with how many;
`output` where only the job's key can tell; `files` with how many are not in an archive.
"""

from typing import Any

from sandrun_api.jobs.logs import STDERR, STDOUT
from sandrun_api.jobs.model import Job

HEADER = "Sandrun-Truncated"
HEADERS: dict[str, Any] = {  # of the OpenAPI document
    HEADER: {
        "description": "What is missing (RFC 9651, Dictionary): `stdout` and `stderr` with bytes, `output`,"
        " or `files` with how many; absent when nothing is",
        "schema": {"type": "string"},
    }
}
NAMES = {STDOUT: "stdout", STDERR: "stderr"}


def is_truncated(job: Job) -> bool:
    """Whether the job is known to have printed more than is kept."""
    return job.logs.truncated or bool(job.outcome and job.outcome.logs_truncated)


def printed_bytes(job: Job, stream: int) -> int:
    """Bytes that the job printed on the stream, as far as is known."""
    outcome = job.outcome
    measured = 0
    if outcome is not None:
        measured = outcome.stdout_bytes if stream == STDOUT else outcome.stderr_bytes
    return max(job.logs.seen_bytes[stream], measured)


def missing_bytes(job: Job) -> dict[str, int] | None:
    """Bytes of each stream that are not kept; None of a sealed job: what is kept are the seal's bytes."""
    if job.request.encrypt_to is not None:
        return None
    return {name: printed_bytes(job, stream) - job.logs.kept_bytes[stream] for stream, name in NAMES.items()}


def members(job: Job) -> dict[str, Any]:
    """The members of a JSON answer."""
    return {"truncated": is_truncated(job), "missing_bytes": missing_bytes(job)}


def described(job: Job) -> str:
    """The value of the header; "" when all output is kept."""
    if not is_truncated(job):
        return ""
    missing = missing_bytes(job) or {}
    return ", ".join(f"{name}={count}" for name, count in missing.items() if count) or "output"


def header(job: Job) -> dict[str, str]:
    """The header of an answer that is the output itself; none when all of it is kept."""
    value = described(job)
    return {HEADER: value} if value else {}


def files_header(job: Job) -> dict[str, str]:
    """The header of an archive from which output files are missing."""
    outcome = job.outcome
    if outcome is None or not outcome.outputs_truncated:
        return {}
    count = sum(item.count for item in outcome.outputs_left_out)
    return {HEADER: f"files={count}" if count else "files"}
