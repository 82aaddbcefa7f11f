"""What the answers look like, for the OpenAPI document; the hot paths do not validate what they made."""

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from sandrun_api.jobs import examples
from sandrun_shared.jobs import LeftOutReason, Verdict

_VERDICTS, _REASONS = ", ".join(Verdict), ", ".join(LeftOutReason)

# Of every address below a job.
JobId = Annotated[str, Path(description="The id that the submission answered with.")]
OutputPath = Annotated[str, Path(description="An output's path, as /outputs lists it.")]


class Schema(BaseModel):
    """Base of the answers."""

    model_config = ConfigDict(frozen=True)


def _shown(example: JsonDict) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class Fault(Schema):
    """One fault in a document."""

    pointer: str = Field(
        description="Where: a JSON pointer (RFC 6901); /query/… is a parameter of the address."
    )
    detail: str = Field(description="What is wrong there.")


class ErrorBody(Schema):
    """Every error looks like this."""

    model_config = _shown(examples.ERROR_BODY)
    error: str = Field(description="The kind of error, in words that stay.")
    reason: str = Field(description="What is wrong, in a sentence.")
    retry_after: int | None = Field(None, description="Seconds after which to try again, as in Retry-After.")
    type: str = Field(description="Always about:blank (RFC 9457).")
    title: str = Field(description="The status' own phrase.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="The same sentence as reason.")
    errors: list[Fault] | None = Field(
        None, description="Each fault of a document or a parameter, 20 at most."
    )


class Submitted(Schema):
    """A job was taken."""

    model_config = _shown(examples.SUBMITTED)
    job_id: str = Field(description="The job's id. Anybody who knows it can read and delete the job.")
    status: str = Field(description="queued; running if it has started already.")
    queue_position: int = Field(description="Its place in the queue, from 1; 0 when it does not wait.")
    notes: list[str] = Field([], description="What of the upload does not count, in sentences.")


class Metrics(Schema):
    """What a job used; seconds and MiB."""

    cpu_seconds: float = Field(description="CPU time of all its processes, with collecting its outputs.")
    memory_mb: float = Field(description="The most memory it had, in MiB.")
    runtime: float = Field(description="Wall time of the program.")
    queued_seconds: float = Field(description="Time in the queue.")
    setup_seconds: float = Field(description="Time to prepare its files and packages.")
    compile_seconds: float = Field(description="Wall time of the compiler.")
    setup_cpu_seconds: float = Field(description="CPU time of installing packages, besides cpu_seconds.")
    compile_cpu_seconds: float = Field(description="The compiler's part of cpu_seconds.")


class ExecutionMetadata(Schema):
    """How a job was run."""

    cpu_seconds: float = Field(description="As in metrics, not rounded.")
    memory_peak_bytes: int = Field(description="The most memory it had.")
    exit_code: int | None = Field(description="As in the status.")
    environment: str = Field(description="The environment it ran in.")
    interpreter: str = Field(description="What ran it.")


class StatusFile(Schema):
    """One output in a status."""

    path: str = Field(description="Its path, relative to the job's folder.")
    size_bytes: int = Field(description="Its size.")
    sha256_hash: str = Field(description="SHA-256 of its content, in hex.")
    type: str = Field(description="Always file.")


class WorkerMetadata(Schema):
    """Who ran a job, and the signature of its receipt."""

    worker_id: str = Field(description="The worker's public key in base64; empty if it has none.")
    signature: str | None = Field(description="The receipt's signature in base64; null without a receipt.")


class ListedOutput(Schema):
    """One output in a receipt."""

    path: str = Field(description="Its path, relative to the job's folder.")
    size_bytes: int = Field(description="Its size.")
    sha256: str = Field(description="SHA-256 of its content, in hex.")
    path_base64: str | None = Field(None, description="The path's bytes, when they are not UTF-8.")
    mode: str | None = Field(None, description="Its nine bits of permission, in octal.")


class Receipt(Schema):
    """What the worker says of the execution, signed; `sandrun verify` checks it."""

    statement: dict[str, Any] = Field(description="What was run and what came out (docs/receipts.md).")
    signature: str = Field(description="Ed25519 over the statement's canonical form, in base64.")
    outputs: list[ListedOutput] | None = Field(
        description="The outputs that outputs_sha256 of the statement covers; null where they do not fit."
    )


class LeftOut(Schema):
    """Files that are not among the outputs: why, and how many are known; a folder counts as one."""

    reason: str = Field(description=f"Why, as a word: {_REASONS}.")
    count: int = Field(description="How many are known.")


class MissingBytes(Schema):
    """Bytes of each stream that the job printed and the server does not keep."""

    stdout: int = Field(description="Of standard output.")
    stderr: int = Field(description="Of standard error.")


_Truncated = Annotated[bool, Field(description="Whether the job printed more than is kept.")]
_Missing = Annotated[
    MissingBytes | None,
    Field(description="How much more; null for a job with `encrypt_to`, of which only its key can tell."),
]


class Hint(Schema):
    """What to do about a failure: `module_missing`, `install_in_job` or `no_network`."""

    code: str = Field(description="The kind of hint, for programs.")
    message: str = Field(description="What to do, for people.")


_Hints = Annotated[
    list[Hint], Field(description="What may help, by the end of stderr; of a sealed job there are none.")
]


class JobStatus(Schema):
    """Where a job is and how it ended."""

    model_config = _shown(examples.JOB_STATUS)
    job_id: str = Field(description="The job's id.")
    status: str = Field(description="queued, running, completed (exit code 0) or failed.")
    queue_position: int | None = Field(
        description="Its place in the queue, from 1; null when it does not wait."
    )
    verdict: str | None = Field(description=f"Why it ended: {_VERDICTS}. Null until then.")
    exit_code: int | None = Field(
        description="128+n for signal n; null when the program never ran or has not ended."
    )
    signal: int | None = Field(description="The signal that ended the program.")
    detail: str | None = Field(description="Why, where the verdict alone does not tell.")
    truncated: _Truncated
    missing_bytes: _Missing
    hints: _Hints
    metrics: Metrics = Field(description="What it used so far.")
    limits: dict[str, Any] = Field(description="The limits as enforced.")
    execution_metadata: ExecutionMetadata = Field(description="How it was run.")
    job_hash: str = Field(description="SHA-256 of the manifest's and the upload's digests, in hex.")
    output_files: dict[str, StatusFile] = Field(
        description="The outputs, by path; empty until the job has ended."
    )
    left_out: list[LeftOut] = Field(description="What is not among the outputs, and why.")
    encrypt_to: str | None = Field(description="The key that logs and outputs are sealed to.")
    worker_metadata: WorkerMetadata = Field(description="Who ran it.")
    receipt: Receipt | None = Field(
        description="The worker's signed statement; null until the job has ended, and without a worker key."
    )
    expires_at: str | None = Field(
        description="When everything is deleted, in UTC (RFC 3339); null until the job has ended."
    )


class Logs(Schema):
    """What a job printed; base64 when either stream is not UTF-8."""

    model_config = _shown(examples.LOGS)
    stdout: str = Field(description="Standard output, from the offset on.")
    stderr: str = Field(description="Standard error, from the offset on.")
    encoding: str = Field(description="utf-8, or base64 for both streams.")
    stdout_bytes: int = Field(description="All that was printed, what was not kept included.")
    stderr_bytes: int = Field(description="All that was printed, what was not kept included.")
    truncated: _Truncated
    missing_bytes: _Missing
    next_offset: int = Field(description="The offset that continues here.")


class OutputDetail(Schema):
    """One output file; mode is its nine bits of permission, in octal."""

    path: str = Field(description="Its path, relative to the job's folder.")
    size_bytes: int = Field(description="Its size.")
    sha256: str = Field(description="SHA-256 of its content, in hex.")
    mime_type: str = Field(description="Its media type, from its name.")
    mode: str = Field(description="Its permissions, as 644.")
    modified_unix_seconds: int = Field(description="When it was changed last.")
    download_url: str = Field(description="The path of this server that downloads it.")


class OutputList(Schema):
    """A job's output files."""

    model_config = _shown(examples.OUTPUT_LIST)
    files: list[str] = Field(description="The paths.")
    details: list[OutputDetail] = Field(description="The same files, with their sizes and digests.")
    truncated: Annotated[bool, Field(description="Whether the job left more than is kept: `left_out`.")]
    left_out: list[LeftOut] = Field(description="What is not among the outputs, and why.")


class Image(Schema):
    """An image a program left, in the answer itself."""

    path: str = Field(description="Its path, relative to the job's folder.")
    mime_type: str = Field(description="Its media type, from its name.")
    data_base64: str = Field(description="Its content.")


class RunResult(Schema):
    """How a program ran."""

    model_config = _shown(examples.RUN_RESULT)
    job_id: str = Field(description="The job's id; of use while it has outputs to download.")
    status: str = Field(description="completed (exit code 0) or failed.")
    verdict: str = Field(description=f"Why it ended: {_VERDICTS}.")
    exit_code: int | None = Field(description="128+n for signal n; null when the program never ran.")
    signal: int | None = Field(description="The signal that ended the program.")
    detail: str | None = Field(description="Why, where the verdict alone does not tell.")
    output: str = Field(description="Both streams in the order they came, as text.")
    stdout: str = Field(description="Standard output as text; bytes that are not UTF-8 become U+FFFD.")
    stderr: str = Field(description="Standard error as text; bytes that are not UTF-8 become U+FFFD.")
    stdout_base64: str | None = Field(None, description="Standard output, when it is not UTF-8.")
    stderr_base64: str | None = Field(None, description="Standard error, when it is not UTF-8.")
    truncated: _Truncated
    missing_bytes: _Missing
    hints: _Hints
    metrics: Metrics = Field(description="What it used.")
    files: list[OutputDetail] = Field(
        description="The outputs; the job stays until they are downloaded or expire."
    )
    left_out: list[LeftOut] = Field(description="What is not among the outputs, and why.")
    images: list[Image] = Field(
        description="Those of the outputs that are images, with their content, as many as fit."
    )
    images_left_out: Annotated[int, Field(description="Images among `files` that had no room in `images`.")]
    receipt: Receipt | None = Field(description="The worker's signed statement; null without a worker key.")
    expires_at: Annotated[
        str | None,
        Field(description="When its files are forgotten; null: it left none."),
    ]


class Health(Schema):
    """The server and its executor work."""

    model_config = _shown(examples.HEALTH)
    status: str = Field(description="Always healthy; else the answer is 503.")
    worker_id: str = Field(description="The worker's public key in base64; empty if it has none.")
    signature: str | None = Field(None, description="Of the nonce, in base64; null without a worker key.")


class ServerInfo(Schema):
    """What this server is."""

    model_config = _shown(examples.SERVER_INFO)
    service: str = Field(description="Always sandrun.")
    status: str = Field(description="Always running.")
    version: str = Field(description="The server's version.")
    description: str = Field(description="What it does, in a sentence.")
    privacy: dict[str, Any] = Field(description="What is kept of clients and jobs.")
    notice: Annotated[str | None, Field(description="What the operator wants users to know.")]
    contact: Annotated[str | None, Field(description="Where to report abuse.")]
    limits: dict[str, Any] = Field(
        description="What a job and an address may use; sizes in the units of their names, times in seconds."
    )
    interpreters: list[str] = Field(description="What can run a program; empty while the executor is away.")
    interpreter_versions: dict[str, str] = Field(description="Their versions, by name.")
    gpus: list[dict[str, Any]] = Field(description="The GPUs that a job may ask for.")


class EnvironmentDetail(Schema):
    """One environment; `headline` has those of its packages that it was made for, without what these need."""

    name: str = Field(description="The name a manifest gives.")
    description: str = Field(description="What it is for.")
    headline: list[str] = Field(
        description="The packages that it is made for, with their versions; empty for an older build."
    )
    packages: list[str] = Field(description="Its packages, with their versions.")
    interpreters: list[str] = Field(description="What can run a program in it.")
    interpreter_versions: dict[str, str] = Field(description="Their versions, by name.")
    warm: bool = Field(description="Whether an interpreter with its modules imported is ready.")


class Environments(Schema):
    """The environments a job may name."""

    model_config = _shown(examples.ENVIRONMENTS)
    templates: list[str] = Field(description="The names.")
    stats: dict[str, Any] = Field(
        description="How many there are and are warm, how often they were used, what they take on the disk."
    )
    details: list[EnvironmentDetail] = Field(description="Each one.")


class YourQuota(Schema):
    """What the caller's address used and may use; CPU in seconds of the last minute; null is unlimited."""

    used: float = Field(description="CPU seconds of the last minute.")
    limit: float | None = Field(description="CPU seconds a minute.")
    available: float | None = Field(description="CPU seconds left of it.")
    active_jobs: int = Field(description="Running jobs.")
    max_concurrent_jobs: int | None = Field(description="Most jobs that run at a time; more wait.")
    queued_jobs: int = Field(description="Waiting jobs.")
    max_queued_jobs: int | None = Field(description="Most jobs that may wait.")
    jobs_this_hour: int = Field(description="Submissions of the last hour.")
    max_jobs_per_hour: int | None = Field(description="Most submissions an hour.")
    can_submit: bool = Field(description="Whether a submission is taken now.")
    reason: str | None = Field(description="Why not.")
    retry_after: int | None = Field(description="Seconds after which one is.")


class SystemLoad(Schema):
    """How busy the server is, in jobs."""

    queue_length: int = Field(description="Jobs that wait.")
    active_jobs: int = Field(description="Jobs that run.")
    capacity: int = Field(description="Jobs that can run at a time.")


class Stats(Schema):
    """The caller's jobs and the server's."""

    model_config = _shown(examples.STATS)
    your_quota: YourQuota = Field(description="Of the caller's address.")
    system: SystemLoad = Field(description="Of all.")


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
