"""The one way into the queue: what a request asks for becomes a job, whichever route or adapter took it."""

import asyncio
from typing import Any

from msgspec import structs
from pydantic import ValidationError
from starlette.requests import Request

from sandrun_api.admission.threads import INLINE_BYTES, Blocking
from sandrun_api.edge.clients import client_of
from sandrun_api.errors import ApiError, bad_request, bare, unknown_job
from sandrun_api.jobs import gpus, requirements
from sandrun_api.jobs import manifest as manifests
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.model import Job, JobRequest
from sandrun_api.jobs.service import JobService
from sandrun_api.jobs.views import service_of
from sandrun_api.uploads import documents
from sandrun_api.uploads.receive import Upload
from sandrun_shared import languages, receipts
from sandrun_shared.jobs import UploadKind, Verdict
from sandrun_shared.paths import clean, shown
from sandrun_shared.settings import Settings


def manifest_of(**fields: Any) -> Manifest:
    """A manifest that was not sent as one. Raises ApiError (400)."""
    try:
        return Manifest(**fields)
    except ValidationError as error:
        raise documents.invalid("request", error) from None


async def submit(
    request: Request,
    upload: Upload,
    manifest: Manifest | None = None,
    *,
    idempotency_key: str | None = None,
    most_processes: int | None = None,
) -> tuple[Job, list[str]]:
    """Submit an upload; without a manifest, by the one that is in it.

    Gives the job, and what its client should know of the upload, in sentences. most_processes lowers the
    settings' limit. Takes over the upload, and closes it when no job came of it. Raises ApiError.
    """
    service, client = service_of(request), client_of(request)
    try:
        if manifest is None:
            manifest = _manifest_in(upload)
        asked, notes = await _checked(request, manifest, upload, most_processes)
        known = service.idempotency.find(client, idempotency_key, asked.job_hash)
        if known is not None and (job := service.store.get(known)) is not None:
            upload.close()
            return job, notes
        upload.reservation.charge(-upload.check_bytes)
        job = service.submit(asked, upload.memfd, upload.reservation)
    except BaseException as error:
        upload.close()
        del upload, manifest  # the error holds this frame while it is answered
        if isinstance(error, ApiError):
            bare(error)
        raise
    service.idempotency.remember(client, idempotency_key, job.job_id, asked.job_hash)
    return job, notes


def _manifest_in(upload: Upload) -> Manifest:
    if upload.manifest is None:
        raise bad_request("There is no manifest: send a part named 'manifest', or a job.json in the upload.")
    return manifests.parse(upload.manifest)


async def _checked(
    request: Request, manifest: Manifest, upload: Upload, most_processes: int | None
) -> tuple[JobRequest, list[str]]:
    """What is asked of the executor, and notes for the client. Raises ApiError."""
    settings: Settings = request.app.state.settings
    service, client = service_of(request), client_of(request)
    upload.reservation.reserve(manifests.held_bytes(manifest))
    manifests.check(manifest, settings.limits)
    encrypt_to = manifests.encryption_key_of(manifest)
    entrypoint = clean(manifest.entrypoint)
    root = "" if upload.kind is UploadKind.bundle else upload.contents.root_of(entrypoint)
    path = f"{root}/{entrypoint}" if root else entrypoint
    if path not in upload.contents.files:
        raise bad_request(_missing(entrypoint, upload.contents.files), "/entrypoint")
    head = upload.contents.heads.get(path, b"")
    interpreter = manifests.interpreter_of(manifest, head)
    worker = await service.worker_for_job(manifest.environment)
    manifests.check_worker(interpreter, manifest.environment, worker, head)
    blocking = service.threads.of(client)
    required = None
    if (installer := requirements.installer_of(manifest, worker, settings)) is not None:
        required = await requirements.of_upload(manifest, installer, upload, settings, blocking, root=root)
        upload.reservation.reserve(required.held_bytes)
    limits = settings.limits.granted(
        timeout_seconds=manifest.timeout, memory_mb=manifest.memory_mb, cpu_seconds=manifest.cpu_seconds
    )
    if most_processes is not None:
        limits = structs.replace(limits, processes=min(most_processes, limits.processes))
    devices = gpus.accepted(manifest.gpu, worker)
    manifest_sha256 = await _digest_of(manifest, blocking)
    asked = JobRequest(
        client=client,
        manifest=manifest,
        interpreter=interpreter,
        limits=limits,
        kind=upload.kind,
        manifest_sha256=manifest_sha256,
        job_hash=receipts.job_hash(manifest_sha256, upload.sha256_hex),
        gpus=devices,
        requirements=required,
        encrypt_to=encrypt_to,
    )
    return asked, [*upload.notes, *_root_note(root), *_bom_note(entrypoint, interpreter, head)]


async def _digest_of(manifest: Manifest, blocking: Blocking) -> str:
    """As `manifests.digest`; of a large manifest in a thread, as 10 MiB of stdin take up to a second."""
    if manifests.held_bytes(manifest) <= INLINE_BYTES:
        return manifests.digest(manifest)
    return await blocking(manifests.digest, manifest)


def _missing(entrypoint: str, files: frozenset[str]) -> str:
    name = entrypoint.rsplit("/", 1)[-1]
    similar = sorted(path for path in files if path.rsplit("/", 1)[-1] == name)
    hint = f"; there is '{shown(similar[0])}'" if similar else ""
    return f"The entrypoint '{shown(entrypoint)}' is not a file of the upload{hint}."


def _root_note(root: str) -> list[str]:
    if not root:
        return []
    return [f"The folder '{shown(root)}' of the archive is its root: the entrypoint is only there."]


def _bom_note(entrypoint: str, interpreter: str, head: bytes) -> list[str]:
    """What a byte order mark does there. The upload itself is not changed: receipts state its hash."""
    language = languages.BY_NAME.get(interpreter)
    if not head.startswith(languages.BOM) or language is None or language.takes_bom:
        return []
    return [
        f"The entrypoint '{shown(entrypoint)}' begins with a byte order mark, which {interpreter} takes for a"
        " part of the program: save it without one."
    ]


async def wait_for(request: Request, service: JobService, job: Job) -> None:
    """Wait until the job has ended; a client that hangs up cancels it. Raises ApiError (404, 503)."""

    async def hang_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        service.delete(job)

    watcher = asyncio.create_task(hang_up())
    try:
        await job.finished.wait()
    finally:
        watcher.cancel()
    if job.deleted and not job.is_finished:
        raise unknown_job()
    if job.outcome is not None and job.outcome.verdict is Verdict.executor_lost:
        raise ApiError(503, f"The job was lost: {job.outcome.detail}.", retry_after=5)
