"""What the answers look like, for the OpenAPI document; the hot paths do not validate what they made."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """Base of the answers."""

    model_config = ConfigDict(frozen=True)


class Fault(Schema):
    """One fault in a document."""

    pointer: str
    detail: str


class ErrorBody(Schema):
    """Every error looks like this."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": "Invalid request",
                    "reason": "The manifest is not valid: field 'entrypoint' is required",
                    "type": "about:blank",
                    "title": "Bad Request",
                    "status": 400,
                    "detail": "The manifest is not valid: field 'entrypoint' is required",
                    "errors": [{"pointer": "/entrypoint", "detail": "field 'entrypoint' is required"}],
                }
            ]
        }
    )
    error: str
    reason: str
    retry_after: int | None = None
    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = None


class Submitted(Schema):
    """A job was taken."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"job_id": "Zk3v0gk1QbmQ5rW8xJ2c9w", "status": "queued", "queue_position": 0}]
        }
    )
    job_id: str
    status: str
    queue_position: int


class Metrics(Schema):
    """What a job used; seconds and MiB."""

    cpu_seconds: float
    memory_mb: float
    runtime: float
    queued_seconds: float
    setup_seconds: float


class ExecutionMetadata(Schema):
    """How a job was run."""

    cpu_seconds: float
    memory_peak_bytes: int
    exit_code: int | None
    environment: str
    interpreter: str


class StatusFile(Schema):
    """One output in a status."""

    path: str
    size_bytes: int
    sha256_hash: str
    type: str


class WorkerMetadata(Schema):
    """Who ran a job, and the signature of its receipt."""

    worker_id: str
    signature: str | None


class ListedOutput(Schema):
    """One output in a receipt."""

    path: str
    size_bytes: int
    sha256: str
    path_base64: str | None = None


class Receipt(Schema):
    """What the worker says of the execution, signed; `sandrun verify` checks it."""

    statement: dict[str, Any]
    signature: str
    outputs: list[ListedOutput] | None


class JobStatus(Schema):
    """Where a job is and how it ended."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"job_id": "Zk3v0gk1QbmQ5rW8xJ2c9w", "status": "completed", "verdict": "ok", "exit_code": 0}
            ]
        }
    )
    job_id: str
    status: str
    queue_position: int | None
    verdict: str | None
    exit_code: int | None
    signal: int | None
    detail: str | None
    metrics: Metrics
    limits: dict[str, Any]
    execution_metadata: ExecutionMetadata
    job_hash: str
    output_files: dict[str, StatusFile]
    encrypt_to: str | None
    worker_metadata: WorkerMetadata
    receipt: Receipt | None
    expires_at: str | None


class Logs(Schema):
    """What a job printed; base64 when either stream is not UTF-8."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "stdout": "hi\n",
                    "stderr": "",
                    "encoding": "utf-8",
                    "stdout_bytes": 3,
                    "stderr_bytes": 0,
                    "truncated": False,
                    "next_offset": 3,
                }
            ]
        }
    )
    stdout: str
    stderr: str
    encoding: str
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    next_offset: int


class OutputDetail(Schema):
    """One output file."""

    path: str
    size_bytes: int
    sha256: str
    mime_type: str
    download_url: str


class OutputList(Schema):
    """A job's output files."""

    files: list[str]
    details: list[OutputDetail]
    truncated: bool


class Image(Schema):
    """An image a program left, in the answer itself."""

    path: str
    mime_type: str
    data_base64: str


class RunResult(Schema):
    """How a program ran."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"status": "completed", "verdict": "ok", "exit_code": 0, "output": "1\n", "stdout": "1\n"}
            ]
        }
    )
    job_id: str
    status: str
    verdict: str
    exit_code: int | None
    signal: int | None
    detail: str | None
    output: str
    stdout: str
    stderr: str
    truncated: bool
    metrics: Metrics
    files: list[OutputDetail]
    images: list[Image]
    receipt: Receipt | None


class Health(Schema):
    """The server and its executor work."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "healthy", "worker_id": ""}]})
    status: str
    worker_id: str
    signature: str | None = None


class ServerInfo(Schema):
    """What this server is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"service": "sandrun", "status": "running"}]})
    service: str
    status: str
    version: str
    description: str
    privacy: dict[str, Any]
    limits: dict[str, Any]
    interpreters: list[str]


class EnvironmentDetail(Schema):
    """One environment."""

    name: str
    description: str
    packages: list[str]
    interpreters: list[str]
    warm: bool


class Environments(Schema):
    """The environments a job may name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"templates": ["default"]}]})
    templates: list[str]
    stats: dict[str, Any]
    details: list[EnvironmentDetail]


class YourQuota(Schema):
    """What the caller's address used and may use; CPU in seconds of the last minute; null is unlimited."""

    used: float
    limit: float | None
    available: float | None
    active_jobs: int
    max_concurrent_jobs: int | None
    queued_jobs: int
    max_queued_jobs: int | None
    jobs_this_hour: int
    max_jobs_per_hour: int | None
    can_submit: bool
    reason: str | None
    retry_after: int | None


class SystemLoad(Schema):
    """How busy the server is, in jobs."""

    queue_length: int
    active_jobs: int
    capacity: int


class Stats(Schema):
    """The caller's jobs and the server's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "your_quota": {
                        "used": 10.2,
                        "limit": 10.0,
                        "available": 0.0,
                        "active_jobs": 0,
                        "max_concurrent_jobs": 2,
                        "queued_jobs": 0,
                        "max_queued_jobs": 10,
                        "jobs_this_hour": 4,
                        "max_jobs_per_hour": 20,
                        "can_submit": False,
                        "reason": "CPU quota exhausted (10.2/10.0 seconds used)",
                        "retry_after": 45,
                    },
                    "system": {"queue_length": 0, "active_jobs": 1, "capacity": 8},
                }
            ]
        }
    )
    your_quota: YourQuota
    system: SystemLoad


Answers = dict[int | str, dict[str, Any]]

_MEANINGS = {
    400: "Malformed or invalid",
    404: "Unknown job: deleted and never existed look the same",
    409: "Not finished yet, or an Idempotency-Key of another job",
    413: "Too large",
    415: "Not a type this route reads",
    416: "Not a range of this file",
    429: "The address has used its CPU time or its submissions, or has too many jobs waiting",
    503: "The queue or the memory is full, or the executor is away",
}


def answers(model: type[Schema] | None, *errors: int, description: str = "Done") -> Answers:
    """The `responses` of a route: its model and its errors."""
    table: Answers = {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in errors}
    if model is not None:
        table[200] = {"model": model, "description": description}
    return table
