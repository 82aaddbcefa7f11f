"""Submitting a job, asking how it is, deleting it."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sandrun_api.admission.budget import Reservation
from sandrun_api.edge.clients import client_of
from sandrun_api.edge.reject import Rejection
from sandrun_api.errors import ApiError, bad_request, unknown_job
from sandrun_api.jobs import submission
from sandrun_api.jobs.idempotency import KEY_PATTERN
from sandrun_api.jobs.responses import job_document
from sandrun_api.jobs.schemas import JobId, JobStatus, Submitted, answers
from sandrun_api.jobs.views import job_of, json_response, service_of, status_of
from sandrun_api.uploads import receive
from sandrun_shared.paths import shown
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
        job, notes = await submission.submit(request, upload, idempotency_key=key)
    finally:
        del upload  # an error holds this frame while it is answered
    body = {
        "job_id": job.job_id,
        # Published as the answer to a submission, even when a free slot took the job at once.
        "status": "queued",
        "queue_position": service.queue.position(job),
        "notes": notes,
    }
    location = {"Location": f"/status/{job.job_id}"}
    return json_response(body, headers={**location, **service.rate_limits(client)})


@router.get(
    "/status/{job_id}",
    operation_id="getJobStatus",
    summary="Where a job is and how it ended",
    responses=answers(JobStatus, 400, 404),
)
async def get_job_status(
    request: Request,
    job_id: JobId,
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
async def delete_job(request: Request, job_id: JobId) -> Response:
    """Cancel the job if it is not finished, then forget it."""
    service_of(request).delete(job_of(request, job_id))
    return Response(status_code=204)
