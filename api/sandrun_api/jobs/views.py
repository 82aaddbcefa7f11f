"""A job as the client sees it: plain dictionaries, encoded once."""

import base64
import datetime
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response

from sandrun_api.errors import ApiError, unknown_job
from sandrun_api.jobs.model import Job, State
from sandrun_api.jobs.outputs import OutputFile, Outputs
from sandrun_api.jobs.receipts import receipt_of
from sandrun_api.jobs.service import JobService

IMAGE_BYTES = 4 << 20  # of all images that travel inside an answer
_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})


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
    outcome, limits, request = job.outcome, job.request.limits, job.request
    files = job.outputs.files if job.outputs is not None else ()
    receipt = receipt_of(job)
    return {
        "job_id": job.job_id,
        "status": job.state.value,
        "queue_position": service.queue.position(job) if job.state is State.queued else None,
        "verdict": outcome.verdict.value if outcome else None,
        "exit_code": outcome.exit_code if outcome else None,
        "signal": outcome.signal if outcome else None,
        "detail": outcome.detail if outcome else None,
        "metrics": metrics_of(job),
        "limits": {
            "timeout": limits.wall_seconds,
            "cpu_seconds": limits.cpu_seconds,
            "memory_mb": limits.memory_bytes >> 20,
            "disk_mb": limits.disk_bytes >> 20,
            "inodes": limits.inodes,
            "processes": limits.processes,
            "open_files": limits.open_files,
            "log_mb": limits.log_bytes >> 20,
            "cpu_cores": limits.cpu_cores,
            "output_files": limits.output_files,
        },
        "execution_metadata": {
            "cpu_seconds": outcome.cpu_seconds if outcome else job.cpu_seconds,
            "memory_peak_bytes": outcome.memory_peak_bytes if outcome else job.memory_bytes,
            "exit_code": outcome.exit_code if outcome else None,
            "environment": request.manifest.environment,
            "interpreter": request.interpreter,
        },
        "job_hash": request.job_hash,
        "output_files": {
            file.path: {
                "path": file.path,
                "size_bytes": file.entry.size_bytes,
                "sha256_hash": file.entry.sha256_hex,
                "type": "file",
            }
            for file in files
        },
        "left_out": left_out_of(job),
        "encrypt_to": request.manifest.encrypt_to,
        "worker_metadata": {
            "worker_id": receipt.statement.worker_id if receipt else service.worker_id,
            "signature": receipt.signature if receipt else None,
        },
        "receipt": receipt,
        "expires_at": _iso(job.expires_at),
    }


def logs_of(job: Job, offset: int) -> dict[str, Any]:
    """Both streams from a position on, as text if both are UTF-8, else as base64."""
    logs = job.logs
    end = max(offset, logs.text_end())
    stdout, stderr = logs.split(offset, end)
    try:
        texts, encoding = (stdout.decode(), stderr.decode()), "utf-8"
    except UnicodeDecodeError:
        texts = (base64.b64encode(stdout).decode(), base64.b64encode(stderr).decode())
        encoding = "base64"
    outcome = job.outcome
    return {
        "stdout": texts[0],
        "stderr": texts[1],
        "encoding": encoding,
        "stdout_bytes": max(logs.seen_bytes[1], outcome.stdout_bytes if outcome else 0),
        "stderr_bytes": max(logs.seen_bytes[2], outcome.stderr_bytes if outcome else 0),
        "truncated": logs.truncated or bool(outcome and outcome.logs_truncated),
        "next_offset": min(end, logs.size),
    }


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


def images_of(job: Job) -> list[dict[str, str]]:
    """The images among the outputs, as many as fit."""
    images: list[dict[str, str]] = []
    left = IMAGE_BYTES
    for file in job.outputs.files if job.outputs is not None else ():
        if file.mime_type in _IMAGE_TYPES and file.entry.size_bytes <= left and job.outputs is not None:
            data = job.outputs.data.read_at(file.entry.offset, file.entry.size_bytes)
            left -= len(data)
            text = base64.b64encode(data).decode()
            images.append({"path": file.path, "mime_type": file.mime_type, "data_base64": text})
    return images


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
