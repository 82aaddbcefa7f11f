"""What the tools take, as models that give the input schemas."""

import base64
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from sandrun_client.mcp.pieces import LARGEST_PIECE, PIECE_BYTES
from sandrun_client.models import JobOptions
from sandrun_shared import documents


def _unwrapped(value: Any) -> Any:
    """Some clients send lists and objects as JSON in a string."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


_FromJson = BeforeValidator(_unwrapped)
JobId = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,100}$", description="The job, as a tool named it.")]


class Arguments(BaseModel):
    """Arguments of a tool; one that is unknown is an error that names it, null is as good as left out."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return documents.without_nulls(given, optional)


class Nothing(Arguments):
    """No arguments."""


class Base64(Arguments):
    """A file that is no text."""

    base64: str = Field(description="Its bytes in base64.")

    @field_validator("base64")
    @classmethod
    def _is_base64(cls, text: str) -> str:
        base64.b64decode(text, validate=True)
        return text


class Execute(Arguments):
    """Code of a language that is settled."""

    code: str = Field(description="The program.")
    stdin: str = Field("", description="What the program reads from its standard input.")
    timeout: float | None = Field(
        None, gt=0, description="Seconds after which the program is ended [default: the server's, often 300]."
    )
    environment: str = Field(
        "",
        max_length=200,
        description="One that list_environments names [default: default].",
    )
    packages: Annotated[list[str], _FromJson] = Field(
        default=[],
        max_length=200,
        description="Packages to install before the program runs, named as for pip (Python) or npm "
        "(JavaScript), like pandas or numpy==2.1.0. An environment that has them starts sooner.",
    )

    def sources(self) -> dict[str, bytes]:
        """Files besides the code, by path."""
        return {}

    def options(self, interpreter: str) -> JobOptions:
        """The options of a job that runs it; what was left out is the server's default."""
        options: JobOptions = {"interpreter": interpreter}
        if self.stdin:
            options["stdin"] = self.stdin
        if self.timeout is not None:
            options["timeout"] = self.timeout
        if self.environment:
            options["environment"] = self.environment
        if self.packages:
            options["packages"] = self.packages
        return options


class RunCode(Execute):
    """Code of any language, with all that a job may have."""

    language: str = Field(
        max_length=50,
        description="Like python, javascript, bash, ruby, R, perl or php; list_environments has all.",
    )
    args: Annotated[list[str], _FromJson] = Field(default=[], description="Arguments of the program.")
    files: Annotated[dict[str, str | Base64], _FromJson] = Field(
        default={}, description="Files to put next to the program, by relative path: text, or {base64: ...}."
    )
    env: Annotated[dict[str, str], _FromJson] = Field(default={}, description="Environment variables.")
    outputs: Annotated[list[str], _FromJson] = Field(
        default=[],
        description="Patterns of files to keep, like results/ or *.csv [default: what it makes or changes].",
    )
    memory_mb: int | None = Field(None, ge=1, description="Memory in MiB [default: the server's, often 512].")

    def sources(self) -> dict[str, bytes]:
        """Files besides the code, by path."""
        return {
            path: content.encode() if isinstance(content, str) else base64.b64decode(content.base64)
            for path, content in self.files.items()
        }

    def options(self, interpreter: str) -> JobOptions:
        """The options of a job that runs it; what was left out is the server's default."""
        options = super().options(interpreter)
        if self.args:
            options["args"] = self.args
        if self.env:
            options["env"] = self.env
        if self.outputs:
            options["outputs"] = self.outputs
        if self.memory_mb is not None:
            options["memory_mb"] = self.memory_mb
        return options


class SubmitJob(RunCode):
    """The same, for a job that nobody waits for."""

    priority: Literal["normal", "batch"] = Field(
        "normal", description="A batch job starts only when no normal job waits."
    )

    def options(self, interpreter: str) -> JobOptions:
        """The options of a job that runs it; what was left out is the server's default."""
        return {**super().options(interpreter), "priority": self.priority}


class OneJob(Arguments):
    """A job."""

    job_id: JobId


class CheckJobStatus(OneJob):
    """A job, and how long to wait for its end."""

    wait: float = Field(
        0,
        ge=0,
        description="Seconds to wait for its end; answered earlier when it ends, or when that is long.",
    )


class GetJobLogs(OneJob):
    """A part of what a job printed."""

    stream: Literal["stdout", "stderr"] = Field("stdout", description="Which of both.")
    offset: int = Field(0, ge=0, description="The byte of that stream to begin with.")
    limit: int = Field(PIECE_BYTES, ge=16, le=LARGEST_PIECE, description="How many bytes at most.")


class GetJobFile(OneJob):
    """A file that a job left, or a part of it."""

    path: str = Field(min_length=1, description="The file, as a tool named it.")
    offset: int = Field(0, ge=0, description="The byte to begin with.")
    limit: int = Field(PIECE_BYTES, ge=16, le=LARGEST_PIECE, description="How many bytes at most.")
    encoding: Literal["auto", "base64"] = Field(
        "auto",
        description="auto shows texts and images, and links to others; base64 gives the bytes of any.",
    )
