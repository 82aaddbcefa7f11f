"""What the server says, as values. Fields that a newer server adds are kept in `raw`, where there is one."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict

from sandrun_client import outcomes
from sandrun_client.errors import JobFailed, UnexpectedAnswer

Stream = Literal["stdout", "stderr"]
FINISHED = frozenset({"completed", "failed"})
TIMEOUTS = frozenset({"wall_time_limit", "cpu_time_limit"})


class JobOptions(TypedDict, total=False):
    """What a job may be given besides its code; what is left out is the server's default.

    timeout and cpu_seconds are seconds, memory_mb is MiB. `env` adds to the sandbox's environment, `outputs`
    are patterns of files to keep (default: every file that changed). `encrypt_to` is an X25519 public key in
    base64: logs and outputs then come sealed, and `sandrun decrypt` opens them. `packages` are installed
    before the program runs, named as for pip or npm; `requirements` names a file of the upload that does.
    """

    interpreter: str
    environment: str
    args: list[str]
    env: dict[str, str]
    stdin: str
    outputs: list[str]
    requirements: str
    packages: list[str]
    timeout: float
    memory_mb: int
    cpu_seconds: float
    gpu: dict[str, Any]
    warm: bool
    buffered: bool | None
    priority: Literal["normal", "batch"]
    encrypt_to: str


class Subscripts:
    """Lets a value be read like the JSON it came from: `result["logs"]["stdout"]`."""

    def __getitem__(self, name: str) -> Any:
        raw = getattr(self, "raw", None) or {}
        if name in raw:
            return raw[name]
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.keys() or name in (getattr(self, "raw", None) or {})

    def get(self, name: str, default: Any = None) -> Any:
        """The value of that name, or the default."""
        try:
            return self[name]
        except KeyError:
            return default

    def keys(self) -> list[str]:
        """The names that a subscript may be."""
        kind = type(self)
        properties = [name for name in dir(kind) if isinstance(getattr(kind, name), property)]
        return [*getattr(kind, "__dataclass_fields__", ()), *properties]


@dataclass(frozen=True)
class Submitted(Subscripts):
    """A job that the server took; upload_sha256 is of what was sent, manifest says how it is to be run."""

    job_id: str
    queue_position: int | None
    upload_sha256: str
    manifest: Mapping[str, Any] | None = field(repr=False)


@dataclass(frozen=True)
class Metrics(Subscripts):
    """What a job used: seconds, and MiB at its peak."""

    cpu_seconds: float = 0.0
    memory_mb: float = 0.0
    runtime: float = 0.0
    queued_seconds: float = 0.0
    setup_seconds: float = 0.0
    compile_seconds: float = 0.0
    setup_cpu_seconds: float = 0.0
    compile_cpu_seconds: float = 0.0

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(**{name: float(document.get(name) or 0) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class OutputFile(Subscripts):
    """A file that a job left."""

    path: str
    size_bytes: int
    sha256: str
    mime_type: str = "application/octet-stream"

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From JSON of either kind: in a list of outputs or in a status."""
        digest = document["sha256"] if "sha256" in document else document["sha256_hash"]
        kind = document.get("mime_type") or "application/octet-stream"
        return cls(str(document["path"]), int(document["size_bytes"]), str(digest), str(kind))


@dataclass(frozen=True)
class Image(Subscripts):
    """An image that a job left, with its bytes."""

    path: str
    mime_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Output(Subscripts):
    """Some live output; `sequence` resumes after it, `data` is exactly what was printed."""

    stream: Stream
    sequence: int
    data: bytes

    @property
    def text(self) -> str:
        """The data as text, with replacement characters for what is not UTF-8."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True)
class Logs(Subscripts):
    """What a job printed: the bytes that were kept of each stream.

    truncated says that it printed more, and printed_bytes how much in all, on both streams together.
    """

    stdout_bytes: bytes
    stderr_bytes: bytes
    truncated: bool = False
    next_offset: int = 0
    printed_bytes: int = 0

    @property
    def stdout(self) -> str:
        """As text, with replacement characters for what is not UTF-8."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """As text, with replacement characters for what is not UTF-8."""
        return self.stderr_bytes.decode("utf-8", "replace")

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From JSON."""
        decode = _from_base64 if document["encoding"] == "base64" else str.encode
        return cls(
            decode(document["stdout"]),
            decode(document["stderr"]),
            bool(document["truncated"]),
            int(document["next_offset"]),
            int(document.get("stdout_bytes") or 0) + int(document.get("stderr_bytes") or 0),
        )


@dataclass(frozen=True)
class Status(Subscripts):
    """Where a job is and how it ended; verdict, exit_code and signal are None before it has."""

    job_id: str
    status: str
    queue_position: int | None
    verdict: str | None
    exit_code: int | None
    signal: int | None
    detail: str
    metrics: Metrics
    output_files: tuple[OutputFile, ...]
    receipt: Mapping[str, Any] | None = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def finished(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.status in FINISHED

    @property
    def ok(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.status == "completed"

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(
            **_ending(document),
            queue_position=document.get("queue_position"),
            metrics=Metrics.of(document["metrics"]),
            output_files=tuple(OutputFile.of(item) for item in document["output_files"].values()),
            receipt=document.get("receipt"),
            raw=document,
        )


@dataclass(frozen=True)
class Result(Subscripts):
    """How a program ran: what it printed, how it ended, what it left."""

    job_id: str
    status: str
    verdict: str | None
    exit_code: int | None
    signal: int | None
    detail: str
    logs: Logs
    metrics: Metrics
    files: tuple[OutputFile, ...]
    images: tuple[Image, ...]
    receipt: Mapping[str, Any] | None = field(repr=False)
    limits: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.status == "completed"

    @property
    def stdout(self) -> str:
        """What it printed, as text."""
        return self.logs.stdout

    @property
    def stderr(self) -> str:
        """What it printed on its standard error, as text."""
        return self.logs.stderr

    @property
    def output_files(self) -> tuple[OutputFile, ...]:
        """The same as files."""
        return self.files

    @property
    def truncated(self) -> bool:
        """Whether it printed more than the server keeps, so that stdout and stderr are not all of it."""
        return self.logs.truncated

    def check(self) -> Self:
        """This result if the program ended well. Raises JobFailed, with the last line of its stderr."""
        if self.ok:
            return self
        words = outcomes.describe_outcome(
            {name: getattr(self, name) for name in ("verdict", "signal", "detail", "limits")}
        )
        last = self.stderr.strip().rpartition("\n")[2]
        ended = f"it {words}" if words else f"it ended with exit code {self.exit_code}"
        raise JobFailed(f"The program failed: {ended}{f': {last}' if last else ''}.", self)

    @classmethod
    def of_run(cls, document: Mapping[str, Any]) -> Self:
        """From the JSON of POST /run."""
        exact = "stdout_base64" in document
        names = ("stdout_base64", "stderr_base64") if exact else ("stdout", "stderr")
        decode = _from_base64 if exact else str.encode
        return cls(
            **_ending(document),
            logs=Logs(decode(document[names[0]]), decode(document[names[1]]), bool(document["truncated"])),
            metrics=Metrics.of(document["metrics"]),
            files=tuple(OutputFile.of(item) for item in document["files"]),
            images=tuple(
                Image(item["path"], item["mime_type"], _from_base64(item["data_base64"]))
                for item in document["images"]
            ),
            receipt=document.get("receipt"),
            limits=document.get("limits") or {},
        )

    @classmethod
    def of_status(
        cls, status: Status, logs: Logs, files: tuple[OutputFile, ...], images: tuple[Image, ...]
    ) -> Self:
        """From what the single routes say."""
        return cls(
            **_ending(status.raw),
            logs=logs,
            metrics=status.metrics,
            files=files,
            images=images,
            receipt=status.receipt,
            limits=status.raw.get("limits") or {},
        )


@dataclass(frozen=True)
class Connection(Subscripts):
    """A server that answered; `verified` when it proved to be the worker named by `verify_with`."""

    url: str
    version: str
    worker_id: str
    verified: bool
    interpreters: tuple[str, ...]
    limits: Mapping[str, Any]


def _ending(document: Mapping[str, Any]) -> dict[str, Any]:
    names = ("verdict", "exit_code", "signal")
    return {
        "job_id": str(document["job_id"]),
        "status": str(document["status"]),
        "detail": str(document.get("detail") or ""),
        **{name: document.get(name) for name in names},
    }


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise UnexpectedAnswer("The server sent invalid base64.") from None
