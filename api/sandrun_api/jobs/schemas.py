"""What the answers look like, for the OpenAPI document; the hot paths do not validate what they made."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from sandrun_api.jobs import examples


class Schema(BaseModel):
    """Base of the answers."""

    model_config = ConfigDict(frozen=True)


def _shown(example: JsonDict) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class Fault(Schema):
    """One fault in a document."""

    pointer: str
    detail: str


class ErrorBody(Schema):
    """Every error looks like this."""

    model_config = _shown(examples.ERROR_BODY)
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

    model_config = _shown(examples.SUBMITTED)
    job_id: str
    status: str
    queue_position: int
    notes: Annotated[list[str], Field(description="What of the upload does not count, in sentences.")] = []


class Metrics(Schema):
    """What a job used; seconds and MiB."""

    cpu_seconds: float
    memory_mb: float
    runtime: float
    queued_seconds: float
    setup_seconds: float
    compile_seconds: float
    setup_cpu_seconds: float
    compile_cpu_seconds: float


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
    mode: str | None = None


class Receipt(Schema):
    """What the worker says of the execution, signed; `sandrun verify` checks it."""

    statement: dict[str, Any]
    signature: str
    outputs: list[ListedOutput] | None


class LeftOut(Schema):
    """Files that are not among the outputs: why, and how many are known; a folder counts as one."""

    reason: str
    count: int


class MissingBytes(Schema):
    """Bytes of each stream that the job printed and the server does not keep."""

    stdout: int
    stderr: int


_Truncated = Annotated[bool, Field(description="Whether the job printed more than is kept.")]
_Missing = Annotated[
    MissingBytes | None,
    Field(description="How much more; null for a job with `encrypt_to`, of which only its key can tell."),
]


class Hint(Schema):
    """What to do about a failure: `module_missing`, `install_in_job` or `no_network`."""

    code: str
    message: str


_Hints = Annotated[
    list[Hint], Field(description="What may help, by the end of stderr; of a sealed job there are none.")
]


class JobStatus(Schema):
    """Where a job is and how it ended."""

    model_config = _shown(examples.JOB_STATUS)
    job_id: str
    status: str
    queue_position: int | None
    verdict: str | None
    exit_code: int | None
    signal: int | None
    detail: str | None
    truncated: _Truncated
    missing_bytes: _Missing
    hints: _Hints
    metrics: Metrics
    limits: dict[str, Any]
    execution_metadata: ExecutionMetadata
    job_hash: str
    output_files: dict[str, StatusFile]
    left_out: list[LeftOut]
    encrypt_to: str | None
    worker_metadata: WorkerMetadata
    receipt: Receipt | None
    expires_at: str | None


class Logs(Schema):
    """What a job printed; base64 when either stream is not UTF-8."""

    model_config = _shown(examples.LOGS)
    stdout: str
    stderr: str
    encoding: str
    stdout_bytes: int
    stderr_bytes: int
    truncated: _Truncated
    missing_bytes: _Missing
    next_offset: int


class OutputDetail(Schema):
    """One output file; mode is its nine bits of permission, in octal."""

    path: str
    size_bytes: int
    sha256: str
    mime_type: str
    mode: str
    modified_unix_seconds: int
    download_url: str


class OutputList(Schema):
    """A job's output files."""

    model_config = _shown(examples.OUTPUT_LIST)
    files: list[str]
    details: list[OutputDetail]
    truncated: Annotated[bool, Field(description="Whether the job left more than is kept: `left_out`.")]
    left_out: list[LeftOut]


class Image(Schema):
    """An image a program left, in the answer itself."""

    path: str
    mime_type: str
    data_base64: str


class RunResult(Schema):
    """How a program ran."""

    model_config = _shown(examples.RUN_RESULT)
    job_id: str
    status: str
    verdict: str
    exit_code: int | None
    signal: int | None
    detail: str | None
    output: str
    stdout: str
    stderr: str
    stdout_base64: str | None = None
    stderr_base64: str | None = None
    truncated: _Truncated
    missing_bytes: _Missing
    hints: _Hints
    metrics: Metrics
    files: list[OutputDetail]
    left_out: list[LeftOut]
    images: list[Image]
    images_left_out: Annotated[int, Field(description="Images among `files` that had no room in `images`.")]
    receipt: Receipt | None
    expires_at: Annotated[
        str | None,
        Field(description="When its files are forgotten; null: it left none."),
    ]


class Health(Schema):
    """The server and its executor work."""

    model_config = _shown(examples.HEALTH)
    status: str
    worker_id: str
    signature: str | None = None


class ServerInfo(Schema):
    """What this server is."""

    model_config = _shown(examples.SERVER_INFO)
    service: str
    status: str
    version: str
    description: str
    privacy: dict[str, Any]
    notice: Annotated[str | None, Field(description="What the operator wants users to know.")]
    contact: Annotated[str | None, Field(description="Where to report abuse.")]
    limits: dict[str, Any]
    interpreters: list[str]
    interpreter_versions: dict[str, str]
    gpus: list[dict[str, Any]]


class EnvironmentDetail(Schema):
    """One environment; `headline` has those of its packages that it was made for, without what these need."""

    name: str
    description: str
    headline: list[str]
    packages: list[str]
    interpreters: list[str]
    interpreter_versions: dict[str, str]
    warm: bool


class Environments(Schema):
    """The environments a job may name."""

    model_config = _shown(examples.ENVIRONMENTS)
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

    model_config = _shown(examples.STATS)
    your_quota: YourQuota
    system: SystemLoad


Answers = dict[int | str, dict[str, Any]]

_MEANINGS = {
    400: "Malformed or invalid",
    403: "A web page of an origin that may not use this server (`Origin`)",
    404: "Unknown job: deleted and never existed look the same",
    409: "Not finished yet, or an Idempotency-Key of another job",
    413: "Too large",
    414: "The address has more than 8 KiB",
    415: "Not a type this route reads",
    416: "Not a range of this file",
    421: "A name that this server does not answer to (`Host`)",
    429: "The address has used its CPU time or its submissions, or has too many jobs waiting",
    431: "The headers are too long or too many",
    503: "The queue or the memory is full, no sandbox can be made, or the executor is away",
}


_RETRY_AFTER = {"description": "Seconds, as `retry_after`", "schema": {"type": "integer"}}
_TEXT = {"type": "string"}
_HEADERS = {
    416: {"Content-Range": {"description": "The size of the file", "schema": _TEXT}},
    429: {
        "Retry-After": {**_RETRY_AFTER, "required": True},
        "RateLimit-Policy": {"description": "Your quotas (IETF draft 10)", "schema": _TEXT},
        "RateLimit": {"description": "What is left of them (IETF draft 10)", "schema": _TEXT},
    },
    503: {"Retry-After": _RETRY_AFTER},
}


def answers(model: type[Schema] | None, *errors: int, description: str = "Done") -> Answers:
    """The `responses` of a route: its model and its errors."""
    table: Answers = {
        status: {
            "model": ErrorBody,
            "description": _MEANINGS[status],
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in errors
    }
    if model is not None:
        table[200] = {"model": model, "description": description}
    return table
