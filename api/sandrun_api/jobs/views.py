"""A job as the client sees it: plain dictionaries, encoded once."""

import datetime
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response

from sandrun_api.edge.json_pieces import Chunks, Members
from sandrun_api.errors import ApiError, unknown_job
from sandrun_api.jobs import truncation
from sandrun_api.jobs.logs import STDERR, STDOUT
from sandrun_api.jobs.model import Job, State
from sandrun_api.jobs.outputs import OutputFile, Outputs
from sandrun_api.jobs.receipts import receipt_document
from sandrun_api.jobs.service import JobService
from sandrun_shared import images, jobs
from sandrun_shared.keys import text_of


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def service_of(connection: HTTPConnection) -> JobService:
    """The service of the application that serves the request."""
    service: JobService = connection.app.state.service
    return service


def job_of(connection: HTTPConnection, job_id: str) -> Job:
    """The job of that id. Raises ApiError (404)."""
    job = service_of(connection).store.get(job_id)
    if job is None:
        raise unknown_job()
    return job


def outputs_of(job: Job) -> Outputs | None:
    """A finished job's outputs. Raises ApiError (409) for one that is not finished."""
    if not job.is_finished:
        raise ApiError(409, f"The job is {job.state.value}; it has no outputs before it is finished.")
    return job.outputs


def metrics_of(job: Job) -> dict[str, float]:
    """What the job used."""
    outcome = job.outcome
    cpu = outcome.cpu_seconds if outcome else job.cpu_seconds
    memory = outcome.memory_peak_bytes if outcome else job.memory_bytes
    setup = outcome.setup_seconds if outcome else job.setup_seconds
    setup_cpu = outcome.setup_cpu_seconds if outcome else 0.0
    if job.installed is not None:  # by another request to the executor
        setup += job.installed.setup_seconds
        setup_cpu += job.installed.setup_cpu_seconds
    return {
        "cpu_seconds": round(cpu, 6),
        "memory_mb": round(memory / (1 << 20), 3),
        "runtime": round(outcome.wall_seconds, 6) if outcome else 0.0,
        "queued_seconds": round(job.queued_seconds, 6),
        "setup_seconds": round(setup, 6),
        "compile_seconds": round(outcome.compile_seconds, 6) if outcome else 0.0,
        "setup_cpu_seconds": round(setup_cpu, 6),
        "compile_cpu_seconds": round(outcome.compile_cpu_seconds, 6) if outcome else 0.0,
    }


def status_of(job: Job, service: JobService) -> dict[str, Any]:
    """The job's status."""
    outcome, request = job.outcome, job.request
    files = job.outputs.files if job.outputs is not None else ()
    receipt = job.receipt
    return {
        "job_id": job.job_id,
        "status": job.state.value,
        "queue_position": service.queue.position(job) if job.state is State.queued else None,
        "verdict": outcome.verdict.value if outcome else None,
        "exit_code": outcome.exit_code if outcome else None,
        "signal": outcome.signal if outcome else None,
        "detail": outcome.detail if outcome else None,
        **truncation.members(job),
        "hints": hint_documents(job),
        "metrics": metrics_of(job),
        "limits": jobs.shown(request.limits),
        "execution_metadata": {
            "cpu_seconds": outcome.cpu_seconds if outcome else job.cpu_seconds,
            "memory_peak_bytes": outcome.memory_peak_bytes if outcome else job.memory_bytes,
            "exit_code": outcome.exit_code if outcome else None,
            "environment": request.manifest.environment,
            "interpreter": request.interpreter,
        },
        "job_hash": request.job_hash,
        "output_files": Members(lambda: ((file.path, _listed(file)) for file in files)),
        "left_out": left_out_of(job),
        "encrypt_to": request.manifest.encrypt_to,
        "worker_metadata": {
            "worker_id": receipt.statement.worker_id if receipt else service.worker_id,
            "signature": text_of(receipt.signature) if receipt else None,
        },
        "receipt": receipt_document(job),
        "expires_at": expiry_of(job),
    }


def _listed(file: OutputFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "size_bytes": file.entry.size_bytes,
        "sha256_hash": file.entry.sha256_hex,
        "type": "file",
    }


def logs_of(job: Job, offset: int) -> dict[str, Any]:
    """Both streams from a position on, as text if both are UTF-8, else as base64."""
    logs = job.logs
    end = max(offset, logs.text_end())
    stdout, stderr = (logs.bytes_of(stream, offset, end) for stream in (STDOUT, STDERR))
    is_text = stdout.is_utf8 and stderr.is_utf8
    return {
        "stdout": stdout.text if is_text else stdout.base64,
        "stderr": stderr.text if is_text else stderr.base64,
        "encoding": "utf-8" if is_text else "base64",
        "stdout_bytes": truncation.printed_bytes(job, STDOUT),
        "stderr_bytes": truncation.printed_bytes(job, STDERR),
        **truncation.members(job),
        "next_offset": min(end, logs.size),
    }


def hint_documents(job: Job) -> list[dict[str, str]]:
    """What the client can do about the job's failure, where Sandrun is its cause."""
    return [{"code": code, "message": message} for code, message in job.hints]


def detail_of(job: Job, file: OutputFile) -> dict[str, Any]:
    """One output file."""
    return {
        "path": file.path,
        "size_bytes": file.entry.size_bytes,
        "sha256": file.entry.sha256_hex,
        "mime_type": file.mime_type,
        "mode": f"{file.entry.mode or 0:03o}",
        "modified_unix_seconds": file.entry.modified_unix_seconds or 0,
        "download_url": f"/download/{job.job_id}/{quote(file.path)}",
    }


def left_out_of(job: Job) -> list[dict[str, Any]]:
    """What is not among the outputs, and why."""
    left_out = job.outcome.outputs_left_out if job.outcome is not None else ()
    return [{"reason": item.reason.value, "count": item.count} for item in left_out]


def images_of(job: Job) -> tuple[list[dict[str, Any]], int]:
    """The images among the outputs, as many as fit, and how many do not."""
    found: list[dict[str, Any]] = []
    left_out = 0
    left = images.MAX_BYTES
    outputs = job.outputs
    for file in outputs.files if outputs is not None else ():
        if file.mime_type not in images.TYPES or outputs is None:
            continue
        if file.entry.size_bytes > left:
            left_out += 1
        else:
            left -= file.entry.size_bytes
            data = _bytes_of(outputs, file).base64
            found.append({"path": file.path, "mime_type": file.mime_type, "data_base64": data})
    return found, left_out


def _bytes_of(outputs: Outputs, file: OutputFile) -> Chunks:
    return Chunks(lambda: outputs.data.pieces(file.entry.offset, file.entry.size_bytes))


def expiry_of(job: Job) -> str | None:
    """When a finished job is forgotten (RFC 3339)."""
    if job.expires_at is None:
        return None
    return datetime.datetime.fromtimestamp(job.expires_at, datetime.UTC).isoformat(timespec="seconds")
