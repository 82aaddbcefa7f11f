"""Submitting a job, asking how it is, deleting it."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sandrun_api.admission.budget import Reservation
from sandrun_api.edge.clients import client_of
from sandrun_api.edge.reject import Rejection
from sandrun_api.errors import ApiError, bad_request, bare, unknown_job
from sandrun_api.jobs import gpus, requirements
from sandrun_api.jobs import manifest as manifests
from sandrun_api.jobs.idempotency import KEY_PATTERN
from sandrun_api.jobs.model import Job, JobRequest
from sandrun_api.jobs.responses import job_document
from sandrun_api.jobs.schemas import JobStatus, Submitted, answers
from sandrun_api.jobs.service import JobService
from sandrun_api.jobs.views import job_of, json_response, service_of, status_of
from sandrun_api.uploads import receive
from sandrun_shared import languages
from sandrun_shared.paths import clean, shown
from sandrun_shared.settings import Settings

MAX_WAIT_SECONDS = 60

router = APIRouter(tags=["jobs"])

_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "One archive, or single files with their path as filename.",
                        },
                        "manifest": {
                            "$ref": "#/components/schemas/Manifest",
                            "description": "JSON; or send it as job.json at the root of the upload.",
                        },
                    },
                },
                "encoding": {"manifest": {"contentType": "application/json"}},
            }
        },
    },
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Makes a retry safe: the same key and upload give the same job.",
            "schema": {"type": "string", "pattern": KEY_PATTERN},
        }
    ],
}


@router.post(
    "/submit",
    operation_id="submitJob",
    summary="Submit a job",
    responses=answers(Submitted, 400, 409, 413, 415, 429, 503, description="The job was taken"),
    openapi_extra=_UPLOAD,
)
async def submit_job(request: Request) -> Response:
    """Take an upload and a manifest; the job runs as soon as it is its turn."""
    service = service_of(request)
    settings: Settings = request.app.state.settings
    headers, client = request.headers, client_of(request)
    key = headers.get("idempotency-key")
    if request.query_params:
        unknown = shown(next(iter(request.query_params)))
        error = bad_request(f"The address has a parameter '{unknown}': everything is said in the manifest.")
        return Rejection(error)
    if not service.idempotency.knows(client, key):
        try:
            service.admit(client)
        except ApiError as error:
            return Rejection(error)
    try:
        upload = await receive.receive(
            headers.get("content-type", ""),
            headers.get("content-length"),
            request.stream(),
            settings,
            reservation=Reservation(service.budget, client),
            blocking=service.threads.of(client),
        )
    except ClientDisconnect:
        raise bad_request("The upload was cut.") from None
    try:
        job, notes = await _submit(service, settings, upload, client, key)
    except BaseException as error:
        upload.close()
        del upload  # the error holds this frame while it is answered
        if isinstance(error, ApiError):
            bare(error)
        raise
    body = {
        "job_id": job.job_id,
        # Published as the answer to a submission, even when a free slot took the job at once.
        "status": "queued",
        "queue_position": service.queue.position(job),
        "notes": notes,
    }
    location = {"Location": f"/status/{job.job_id}"}
    return json_response(body, headers={**location, **service.rate_limits(client)})


async def _submit(
    service: JobService, settings: Settings, upload: receive.Upload, client: str, key: str | None
) -> tuple[Job, list[str]]:
    """The job, and what its client should know of the upload, in sentences. Raises ApiError."""
    if upload.manifest is None:
        raise bad_request("There is no manifest: send a part named 'manifest', or a job.json in the upload.")
    manifest = manifests.parse(upload.manifest)
    upload.reservation.reserve(manifests.held_bytes(manifest))
    manifests.check(manifest, settings.limits)
    entrypoint = clean(manifest.entrypoint)
    if entrypoint not in upload.contents.files:
        raise bad_request(_missing(entrypoint, upload.contents.files), "/entrypoint")
    head = upload.contents.heads.get(entrypoint, b"")
    interpreter = manifests.interpreter_of(manifest, head)
    notes = [*upload.notes, *_bom_note(entrypoint, interpreter, head)]
    worker = await service.worker_for_job(manifest.environment)
    manifests.check_worker(interpreter, manifest.environment, worker, head)
    required = None
    if (installer := requirements.installer_of(manifest, worker, settings)) is not None:
        blocking = service.threads.of(client)
        required = await requirements.of_upload(manifest, installer, upload, settings, blocking)
        upload.reservation.reserve(required.held_bytes)
    job_request = JobRequest(
        client=client,
        manifest=manifest,
        interpreter=interpreter,
        limits=manifests.limits_of(manifest, settings.limits),
        kind=upload.kind,
        job_hash=manifests.job_hash(manifest, upload.sha256_hex),
        gpus=gpus.accepted(manifest.gpu, worker),
        requirements=required,
    )
    known = service.idempotency.find(client, key, job_request.job_hash)
    if known is not None and (job := service.store.get(known)) is not None:
        upload.close()
        return job, notes
    upload.reservation.charge(-upload.check_bytes)
    job = service.submit(job_request, upload.memfd, upload.reservation)
    service.idempotency.remember(client, key, job.job_id, job_request.job_hash)
    return job, notes


def _bom_note(entrypoint: str, interpreter: str, head: bytes) -> list[str]:
    """What a byte order mark does there. The upload itself is not changed: receipts state its hash."""
    language = languages.BY_NAME.get(interpreter)
    if not head.startswith(languages.BOM) or language is None or language.takes_bom:
        return []
    return [
        f"The entrypoint '{shown(entrypoint)}' begins with a byte order mark, which {interpreter} takes for a"
        " part of the program: save it without one."
    ]


def _missing(entrypoint: str, files: frozenset[str]) -> str:
    name = entrypoint.rsplit("/", 1)[-1]
    similar = sorted(path for path in files if path.rsplit("/", 1)[-1] == name)
    hint = f"; there is '{shown(similar[0])}'" if similar else ""
    return f"The entrypoint '{shown(entrypoint)}' is not a file of the upload{hint}."


@router.get(
    "/status/{job_id}",
    operation_id="getJobStatus",
    summary="Where a job is and how it ended",
    responses=answers(JobStatus, 400, 404),
)
async def get_job_status(
    request: Request,
    job_id: str,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for the job to finish.")
    ] = 0,
) -> Response:
    """The job's status; with `wait`, as soon as it is finished."""
    job = job_of(request, job_id)
    if wait and not job.is_finished:
        try:
            async with asyncio.timeout(wait):
                await job.finished.wait()
        except TimeoutError:
            pass
        if job.deleted:
            raise unknown_job()
    return job_document(job, status_of(job, service_of(request)))


@router.delete(
    "/jobs/{job_id}",
    operation_id="deleteJob",
    summary="Cancel a job and delete everything of it",
    status_code=204,
    responses=answers(None, 404),
)
async def delete_job(request: Request, job_id: str) -> Response:
    """Cancel the job if it is not finished, then forget it."""
    service_of(request).delete(job_of(request, job_id))
    return Response(status_code=204)
