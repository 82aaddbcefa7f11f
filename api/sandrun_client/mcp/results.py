"""Results of tool calls: one answer as structured content, as text, and with its images and links."""

import base64
from collections.abc import Iterable

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent
from pydantic import BaseModel

from sandrun_client import models, outcomes
from sandrun_client.errors import Refused, SandrunError
from sandrun_client.mcp import answers
from sandrun_client.mcp.calls import Found
from sandrun_client.mcp.pieces import PIECE_BYTES, ends, size_text

SHOWN_FILES = 50  # of a list in a text; the structured answer has all


def result(answer: BaseModel, text: str, more: Iterable[ContentBlock] = ()) -> CallToolResult:
    """A result that is no error."""
    return CallToolResult(
        content=[TextContent(text=text), *more], structured_content=answer.model_dump(mode="json")
    )


def failure(error: SandrunError | str) -> CallToolResult:
    """Sandrun itself failed, or refused."""
    text = str(error)
    if isinstance(error, Refused):
        text = error.reason or error.error
        faults = "".join(f"\n{fault.pointer}: {fault.detail}" for fault in error.errors)
        again = f" Try again in {error.retry_after:g} seconds." if error.retry_after is not None else ""
        text = f"{text}{again}{faults}"
    return CallToolResult(content=[TextContent(text=f"Sandrun: {text}")], is_error=True)


def of_job(found: Found, *, links: bool = True) -> CallToolResult:
    """A job, with images shown and other files linked; an error only if it could not be run."""
    status = found.status
    if status.verdict in outcomes.FAULTS:
        return failure(f"the job {outcomes.describe_outcome(status.raw)}")
    answer = job_answer(found)
    shown = {image.path for image in found.images}
    more: list[ContentBlock] = [image_block(image) for image in found.images]
    if links:
        more += [link(file) for file in answer.files if file.path not in shown]
    return result(answer, _text(answer), more)


def job_answer(found: Found) -> answers.Job:
    """What there is of a job."""
    status = found.status
    stdout, stdout_left_out = _shown(found.logs.stdout_bytes, status.job_id, "stdout")
    stderr, stderr_left_out = _shown(found.logs.stderr_bytes, status.job_id, "stderr")
    return answers.Job.model_validate(
        {
            **{
                name: getattr(status, name)
                for name in (
                    "job_id",
                    "status",
                    "finished",
                    "queue_position",
                    "verdict",
                    "exit_code",
                    "signal",
                )
            },
            "reason": _reason(status),
            "stdout": stdout,
            "stderr": stderr,
            "stdout_left_out": stdout_left_out,
            "stderr_left_out": stderr_left_out,
            "truncated": found.logs.truncated,
            "files": [answers.OutputFile.of(status.job_id, file) for file in found.files],
            "metrics": {name: getattr(status.metrics, name) for name in answers.Metrics.model_fields},
            "kept": found.kept,
            "expires_at": status.raw.get("expires_at") if found.kept else None,
        }
    )


def image_block(image: models.Image) -> ImageContent:
    """An image, to be seen."""
    return ImageContent(data=base64.b64encode(image.data).decode(), mime_type=image.mime_type)


def link(file: answers.OutputFile) -> ResourceLink:
    """A file, to be read when it is wanted."""
    return ResourceLink(uri=file.uri, name=file.path, mime_type=file.mime_type, size=file.size_bytes)


def _shown(data: bytes, job_id: str, stream: str) -> tuple[str, answers.LeftOut | None]:
    if len(data) <= PIECE_BYTES:
        return data.decode("utf-8", "replace"), None
    head, tail, start, end = ends(data, PIECE_BYTES)
    pointer = f'get_job_logs(job_id="{job_id}", stream="{stream}", offset={start})'
    text = f"{head}\n[... {end - start} bytes are left out here; {pointer} has them ...]\n{tail}"
    return text, answers.LeftOut(offset=start, size_bytes=end - start)


def _reason(status: models.Status) -> str:
    if not status.finished:
        position = status.queue_position
        return f"waits at position {position} in the queue" if position else f"is {status.status}"
    if (words := outcomes.describe_outcome(status.raw)) is not None:
        return words
    return f"ended with exit code {status.exit_code}"


def _printable(path: str) -> str:
    """A name that pretends to be no other line of the text."""
    return path if path.isprintable() else repr(path)


def _text(answer: answers.Job) -> str:
    lines = [f"The program {answer.reason}."]
    if not answer.finished:
        lines = [
            f"The job {answer.job_id} {answer.reason} and goes on. "
            f'check_job_status(job_id="{answer.job_id}", wait=20) waits for it; cancel_job ends it.'
        ]
    for name, text in (("stdout", answer.stdout), ("stderr", answer.stderr)):
        if text:
            lines += [f"{name}{'' if answer.finished else ' so far'}:", text.rstrip("\n")]
    if answer.finished and not (answer.stdout or answer.stderr):
        lines.append("It printed nothing.")
    if answer.truncated:
        lines.append("It printed more than the server keeps.")
    if answer.files:
        until = f" until {answer.expires_at}" if answer.expires_at else ""
        lines.append(f"Files of job {answer.job_id}, kept{until}, for get_job_file:")
        lines += [
            f"- {_printable(file.path)} ({size_text(file.size_bytes)})" for file in answer.files[:SHOWN_FILES]
        ]
        if len(answer.files) > SHOWN_FILES:
            lines.append(f"- and {len(answer.files) - SHOWN_FILES} more")
    return "\n".join(lines)
