"""What the tools answer, as models that give the output schemas."""

from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field

from sandrun_client import models

State = Literal["queued", "running", "completed", "failed"]
JobId = Annotated[str, Field(description="Names the job to the other tools.")]
URI_TEMPLATE = "sandrun://jobs/{job_id}/files/{+path}"


def uri_of(job_id: str, path: str) -> str:
    """The resource that is a file of a job."""
    return f"sandrun://jobs/{quote(job_id, safe='')}/files/{quote(path)}"


class OutputFile(BaseModel):
    """A file that a job left."""

    path: str
    size_bytes: int
    mime_type: str
    sha256: str
    uri: str = Field(description="The resource to read it with; get_job_file reads it too.")

    @classmethod
    def of(cls, job_id: str, file: models.OutputFile) -> "OutputFile":
        """From what the server says."""
        return cls(
            path=file.path,
            size_bytes=file.size_bytes,
            mime_type=file.mime_type,
            sha256=file.sha256,
            uri=uri_of(job_id, file.path),
        )


class LeftOut(BaseModel):
    """Bytes in the middle of a stream that are not in the answer: get_job_logs has them."""

    offset: int
    size_bytes: int


class Metrics(BaseModel):
    """What a job used: seconds, and MiB at its peak."""

    cpu_seconds: float
    memory_mb: float
    runtime: float
    queued_seconds: float


class Job(BaseModel):
    """A job: where it is or how it ended, what it printed, what it left."""

    job_id: JobId
    status: State = Field(description="completed means that it ended with exit code 0.")
    finished: bool = Field(description="If not, check_job_status tells more later.")
    queue_position: int | None
    verdict: str | None = Field(description="How it ended: ok, nonzero_exit, memory_limit, ...")
    exit_code: int | None
    signal: int | None
    reason: str = Field(description="How it ended or where it is, in words.")
    stdout: str = Field(description="What it printed; its beginning and end if that is much.")
    stderr: str
    stdout_left_out: LeftOut | None
    stderr_left_out: LeftOut | None
    truncated: bool = Field(description="It printed more than the server keeps.")
    files: list[OutputFile]
    metrics: Metrics
    kept: bool = Field(description="Whether the server still has it; if not, this is all that is left of it.")
    expires_at: str | None = Field(description="When the server forgets it.")


class Submitted(BaseModel):
    """A job that was taken."""

    job_id: JobId
    status: State
    queue_position: int | None


class Logs(BaseModel):
    """A part of what a job printed on one stream."""

    job_id: JobId
    stream: Literal["stdout", "stderr"]
    text: str
    offset: int = Field(description="The byte it begins with.")
    next_offset: int | None = Field(description="Where the next part begins; null: this is all so far.")
    size_bytes: int = Field(description="Of the whole stream, so far.")
    truncated: bool = Field(description="It printed more than the server keeps.")


class File(OutputFile):
    """A file that a job left, or a part of it."""

    job_id: JobId
    encoding: Literal["utf-8", "base64", "none"] = Field(
        description="Of content; none: the answer has an image, or only a link, in addition."
    )
    content: str
    offset: int
    next_offset: int | None = Field(description="Where the next part begins; null: nothing is left.")


class Cancelled(BaseModel):
    """A job that is not there any more."""

    job_id: JobId
    existed: bool = Field(description="Whether it was there before.")


class Environment(BaseModel):
    """An environment that a job may name."""

    name: str
    description: str
    interpreters: list[str]
    packages: list[str] = Field(description="The first of them, if they are many.")
    package_count: int


class Environments(BaseModel):
    """What programs find at the server."""

    environments: list[Environment]
    languages: list[str] = Field(description="What run_code takes as language, besides aliases.")
    limits: dict[str, float | int | str | bool | None]
