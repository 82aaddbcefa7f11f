"""The server itself: what it is, whether it works, what it is doing."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from sandrun_api.edge.clients import client_of
from sandrun_api.errors import ApiError
from sandrun_api.jobs import gpus
from sandrun_api.jobs.schemas import Environments, Health, ServerInfo, Stats, answers
from sandrun_api.jobs.service import ready
from sandrun_api.jobs.views import json_response, service_of
from sandrun_api.web import routes as web
from sandrun_shared import keys, receipts
from sandrun_shared.protocol import Description
from sandrun_shared.settings import Quota, Settings

UNLIMITED = Quota(cpu_seconds_per_minute=0, concurrent_jobs=0, jobs_per_hour=0, queued_jobs=0)

router = APIRouter(tags=["server"])

DESCRIPTION = "Runs code that nobody trusts, for people who do not want an account."
PRIVACY = {
    "accounts": False,
    "stored_on_disk": False,
    "addresses_logged": False,
    "content_logged": False,
    "deleted": "after the download of the outputs, or when the job expires",
}


def _versions(worker: Description) -> dict[str, str]:
    """The version of each interpreter and compiler, by name; "" where one tells none."""
    return {item.name: item.version for item in worker.interpreters}


@router.get(
    "/",
    operation_id="getServer",
    summary="What this server is and allows",
    responses={
        200: {
            "model": ServerInfo,
            "description": "Done; the web page for who accepts text/html",
            "content": {"text/html": {"schema": {"type": "string"}}},
        }
    },
)
async def get_server(request: Request) -> Response:
    """Name, version, limits, interpreters and GPUs; the last two are empty while the executor is away."""
    if web.wants_page(request):
        return web.page(request)
    settings: Settings = request.app.state.settings
    limits, quota = settings.limits, settings.quota
    default = limits.default()
    try:
        worker = await service_of(request).worker()
        versions, devices = _versions(worker), [gpus.described(gpu) for gpu in worker.gpus]
    except ApiError:
        versions, devices = {}, []
    body = {
        "service": "sandrun",
        "status": "running",
        "version": request.app.version,
        "description": DESCRIPTION,
        "privacy": PRIVACY,
        "notice": settings.api.notice or None,
        "contact": settings.api.contact or None,
        "limits": {
            "upload_bytes": settings.api.upload_bytes,
            "timeout": default.wall_seconds,
            "max_timeout": limits.max_timeout_seconds,
            "memory_mb": default.memory_bytes >> 20,
            "max_memory_mb": limits.max_memory_mb,
            "disk_mb": limits.disk_mb,
            "processes": limits.processes,
            "log_mb": limits.log_mb,
            "output_files": limits.output_files,
            "cpu_seconds_per_minute": quota.cpu_seconds_per_minute,
            "jobs_per_hour": quota.jobs_per_hour,
            "concurrent_jobs": quota.concurrent_jobs,
            "queued_jobs": quota.queued_jobs,
        },
        "interpreters": list(versions),
        "interpreter_versions": versions,
        "gpus": devices,
    }
    return json_response(body, headers={"Vary": "Accept"})


@router.get(
    "/health",
    operation_id="getHealth",
    summary="Whether jobs can run",
    responses=answers(Health, 400, 503),
)
async def get_health(
    request: Request,
    nonce: Annotated[
        str | None,
        Query(
            pattern=receipts.NONCE_PATTERN,
            description="Anything fresh: the worker signs it, which proves who it is (docs/receipts.md).",
        ),
    ] = None,
) -> Response:
    """Healthy when the executor answers now and can make a sandbox; `signature` is null without a worker key.

    It is readiness: 503 says that requests should go elsewhere. `GET /` is for liveness.
    """
    service = service_of(request)
    if service.draining:  # a load balancer is to send requests elsewhere
        raise ApiError(503, "The server is stopping.", retry_after=5)
    worker = ready(await service.worker(fresh=True, try_sandbox=True))
    body: dict[str, Any] = {"status": "healthy", "worker_id": worker.worker_id}
    if nonce is not None:
        with service.reaching_executor() as executor:
            proof = await executor.identify(nonce)
        body["worker_id"] = proof.worker_id
        body["signature"] = keys.text_of(proof.signature) if proof.signature else None
    return json_response(body)


@router.get(
    "/environments",
    operation_id="listEnvironments",
    summary="The environments a job may name",
    responses=answers(Environments, 503),
)
async def list_environments(request: Request) -> Response:
    """Every environment with its packages and interpreters."""
    service = service_of(request)
    worker = await service.worker(fresh=True)  # an environment may have been built since
    environments = [item for item in worker.environments if item.built]
    versions = _versions(worker)
    body: dict[str, Any] = {
        "templates": [item.name for item in environments],
        "stats": {
            "total_templates": len(environments),
            "cached_environments": sum(item.warm for item in environments),
            "total_uses": service.uses.total(),
            "disk_usage_mb": round(sum(item.disk_bytes for item in environments) / 2**20, 1),
        },
        "details": [
            {
                "name": item.name,
                "description": item.description,
                "headline": list(item.headline),
                "packages": list(item.packages),
                "interpreters": list(item.interpreters),
                "interpreter_versions": {name: versions.get(name, "") for name in item.interpreters},
                "warm": item.warm,
            }
            for item in environments
        ],
    }
    return json_response(body)


@router.get("/stats", operation_id="getStats", summary="Your jobs and the server's", responses=answers(Stats))
async def get_stats(request: Request) -> Response:
    """What the caller has used and may use (null: any amount), and how busy the server is."""
    service = service_of(request)
    client = client_of(request)
    quota = service.gate.limits_of(client) or UNLIMITED
    usage = service.ledger.usage(client)
    refusal = None
    try:
        service.admit(client)
    except ApiError as error:
        refusal = error
    cpu_seconds = quota.cpu_seconds_per_minute or None
    body = {
        "your_quota": {
            "used": round(usage.cpu_seconds, 6),
            "limit": cpu_seconds,
            "available": None if cpu_seconds is None else round(max(0, cpu_seconds - usage.cpu_seconds), 6),
            "active_jobs": service.queue.running(client),
            "max_concurrent_jobs": quota.concurrent_jobs or None,
            "queued_jobs": service.queue.waiting(client),
            "max_queued_jobs": quota.queued_jobs or None,
            "jobs_this_hour": usage.submissions,
            "max_jobs_per_hour": quota.jobs_per_hour or None,
            "can_submit": refusal is None,
            "reason": None if refusal is None else refusal.reason,
            "retry_after": None if refusal is None else refusal.retry_after,
        },
        "system": {
            "queue_length": len(service.queue),
            "active_jobs": service.queue.running_total,
            "capacity": service.capacity,
        },
    }
    return json_response(body)
