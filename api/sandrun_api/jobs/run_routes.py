"""POST /run: a piece of code in, its output out, in one request."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from sandrun_api.admission.budget import Reservation
from sandrun_api.edge.clients import client_of
from sandrun_api.edge.json_pieces import Items
from sandrun_api.edge.reject import Rejection
from sandrun_api.errors import ApiError, bad_request, bare
from sandrun_api.jobs import manifest as manifests
from sandrun_api.jobs import submission, truncation
from sandrun_api.jobs.events import EVENT_SCHEMA, EventStream, finished_event, has_ended, output_events
from sandrun_api.jobs.following import Follower
from sandrun_api.jobs.logs import STDERR, STDOUT
from sandrun_api.jobs.manifest import JobOptions
from sandrun_api.jobs.model import Job
from sandrun_api.jobs.receipts import receipt_document, receipt_header
from sandrun_api.jobs.responses import job_document, job_text
from sandrun_api.jobs.schemas import RunResult, answers
from sandrun_api.jobs.service import JobService
from sandrun_api.jobs.views import (
    detail_of,
    expiry_of,
    hint_documents,
    images_of,
    left_out_of,
    metrics_of,
    service_of,
)
from sandrun_api.uploads import bodies, documents
from sandrun_api.uploads.bodies import BODY_BYTES, Bundle
from sandrun_api.uploads.contents import Bounds, Table
from sandrun_api.uploads.fields import FieldError, parse_options
from sandrun_shared import languages
from sandrun_shared.paths import shown
from sandrun_shared.settings import Settings

MAX_FILES = 1000  # with the code
DEFAULT_INTERPRETER = languages.DEFAULT
DEFAULT_ENVIRONMENT = "default"
# Of code as text; what is not said is taken as UTF-8. Names as clients send them (IANA's registry).
_CHARSETS = {
    **dict.fromkeys(("", "utf-8", "utf8", "us-ascii", "ascii"), "utf-8"),
    **dict.fromkeys(("iso-8859-1", "latin1"), "iso-8859-1"),
    **dict.fromkeys(("windows-1252", "cp1252"), "cp1252"),
    **{"utf-16": "utf-16", "utf-16le": "utf-16-le", "utf-16be": "utf-16-be"},
}

router = APIRouter(tags=["run"])


class RunRequest(JobOptions):
    """Code to run and what it gets."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"code": "print(1)", "interpreter": "python3"}]}
    )
    code: str = Field(description="The program.")
    interpreter: str = Field(DEFAULT_INTERPRETER, description="What runs it; /environments lists them.")
    files: dict[str, str] = Field({}, description="More files, by path.")


class _Query(NamedTuple):
    """What the address of a request says; None where it says nothing."""

    interpreter: str | None
    environment: str | None

    @classmethod
    def of(cls, request: Request) -> "_Query":
        """Raises ApiError (400) for a name that is unknown, or there twice."""
        given = request.query_params.multi_items()
        names = [name for name, _ in given]
        for name in names:
            if name not in cls._fields:
                known = " and ".join(cls._fields)
                raise bad_request(f"The address has an unknown parameter '{shown(name)}'; known: {known}.")
            if names.count(name) > 1:
                raise bad_request(f"The address has the parameter '{name}' twice.", f"/query/{name}")
        return cls(*(dict(given).get(name) or None for name in cls._fields))


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "text/plain": {
                "schema": {"type": "string", "description": "The program."},
                "example": "print(1)",
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/RunRequest"}},
        },
    },
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": f"{what}; a JSON body may say it instead.",
            "schema": {"type": "string", "default": default},
        }
        for name, what, default in (
            ("interpreter", "What runs the code", DEFAULT_INTERPRETER),
            ("environment", "The environment it runs in", DEFAULT_ENVIRONMENT),
        )
    ],
}


@router.post(
    "/run",
    operation_id="runCode",
    summary="Run code and wait for it",
    responses={
        **answers(RunResult, 400, 413, 415, 429, 503),
        200: {
            "model": RunResult,
            "description": "The program ran, however it ended",
            "headers": truncation.HEADERS,
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "text/event-stream": {"schema": EVENT_SCHEMA},
            },
        },
    },
    openapi_extra=_BODY,
)
async def run_code(request: Request) -> Response:
    """Run code; closing the connection cancels it."""
    service = service_of(request)
    try:
        content_type, parameters = parse_options(request.headers.get("content-type", ""))
    except FieldError as error:
        raise bad_request(f"The Content-Type {error}.") from None
    if content_type not in ("text/plain", "application/json"):
        raise ApiError(415, "Send the code as text/plain, or a description of the run as application/json.")
    try:
        query = _Query.of(request)
        if "idempotency-key" in request.headers:
            raise bad_request("A run has no Idempotency-Key: use /submit for what may be sent again.")
        service.admit(client_of(request))
    except ApiError as error:
        return Rejection(error)
    as_json = content_type == "application/json"
    job = await _submitted(request, service, query, None if as_json else parameters.get("charset", ""))
    if "text/event-stream" in request.headers.get("accept", ""):
        settings: Settings = request.app.state.settings
        events = _events(job, settings.api.heartbeat_seconds)
        return EventStream(job, events, {"Sandrun-Job-Id": job.job_id}, lambda: _forget(service, job))
    try:
        await submission.wait_for(request, service, job)
        return job_document(job, _result(job)) if as_json else _text_answer(job)
    finally:
        _forget(service, job)


def _forget(service: JobService, job: Job) -> None:
    if not job.is_finished or job.outputs is None or not job.outputs.files:
        service.delete(job)


async def _events(job: Job, heartbeat_seconds: float) -> AsyncIterator[bytes]:
    follower = Follower(job.logs)
    async for event in output_events(job, follower, heartbeat_seconds):
        yield event
    if has_ended(job, follower):
        sent = ("output", "stdout", "stderr", "stdout_base64", "stderr_base64")
        result = {key: value for key, value in _result(job).items() if key not in sent}
        for piece in finished_event(follower.last_sequence, result):
            yield piece


async def _submitted(request: Request, service: JobService, query: _Query, charset: str | None) -> Job:
    """The job that a body asks for, one of JSON if it has no charset. Raises ApiError."""
    reservation = Reservation(service.budget, client_of(request))
    try:
        body = bodies.receive(request, reservation)
        # In one step: nothing keeps the body, nor the files in it, while the job is waited for.
        manifest, bundle = _bundled(await body, query, charset, reservation)
    except BaseException:
        reservation.close()
        raise
    upload = await bodies.upload_of(bundle, reservation, service.threads.of(client_of(request)))
    return (await submission.submit(request, upload, manifest))[0]


def _bundled(
    body: bytes, query: _Query, charset: str | None, reservation: Reservation
) -> tuple[manifests.Manifest, Bundle]:
    """What a body asks for, and its files as a bundle; a charset is that of plain text. Raises ApiError."""
    try:
        manifest, files = _from_json(body, query) if charset is None else _from_text(body, query, charset)
        reservation.release()
        return manifest, bodies.bundle_of(files, reservation)
    except ApiError as error:
        raise bare(error) from None


def _from_text(body: bytes, asked: _Query, charset: str) -> tuple[manifests.Manifest, dict[str, bytes]]:
    interpreter = manifests.canonical_interpreter(asked.interpreter or DEFAULT_INTERPRETER)
    name = languages.file_name_of(interpreter)
    code = languages.code_for(interpreter, _as_utf_8(body, charset))
    manifest = submission.manifest_of(
        entrypoint=name, interpreter=interpreter, environment=asked.environment or DEFAULT_ENVIRONMENT
    )
    return manifest, {name: code}


def _from_json(body: bytes, query: _Query) -> tuple[manifests.Manifest, dict[str, bytes]]:
    asked = documents.parse(RunRequest, body, "request")
    for name in _Query._fields:
        told = getattr(query, name), getattr(asked, name)
        if (
            told[0] is not None
            and name in asked.model_fields_set
            and len({*map(languages.canonical, told)}) > 1
        ):
            raise bad_request(f"'{name}' is one thing in the address and another in the body.", f"/{name}")
    interpreter = manifests.canonical_interpreter(query.interpreter or asked.interpreter)
    name = languages.file_name_of(interpreter)
    table = Table(Bounds(BODY_BYTES, MAX_FILES, float("inf")))
    code = languages.code_for(interpreter, _encoded(asked.code, "/code"))
    files: dict[str, bytes] = {}
    for given, text in asked.files.items():
        table.count()
        pointer = "/files/" + given.replace("~", "~0").replace("/", "~1")
        path = table.add_file(given)
        if path == name:
            raise bad_request(f"'files' has '{shown(given)}', which is the name of 'code' itself.", pointer)
        if path in files:
            raise bad_request(f"'files' has '{shown(path)}' under two names.", pointer)
        files[path] = _encoded(text, pointer)
    table.count()
    files[table.add_file(name)] = code
    options = asked.model_fields_set & JobOptions.model_fields.keys()
    fields = {name: getattr(asked, name) for name in options}
    if query.environment is not None:
        fields["environment"] = query.environment
    return submission.manifest_of(entrypoint=name, interpreter=interpreter, **fields), files


def _encoded(text: str, pointer: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise bad_request("A file is not valid text (a lone surrogate).", pointer) from None


def _as_utf_8(body: bytes, charset: str) -> bytes:
    """Code as interpreters read it; what says that it is UTF-8, or nothing, stays as it is."""
    codec = _CHARSETS.get(charset.lower())
    if codec is None:
        raise ApiError(415, "Send the code in UTF-8: this charset is not known here.")
    try:
        return body if codec == "utf-8" else body.decode(codec).encode()
    except UnicodeError:
        raise bad_request("The code is not in the charset that its Content-Type names.") from None


def _text_answer(job: Job) -> Response:
    headers = {"Sandrun-Job-Id": job.job_id, **receipt_header(job)}
    if job.outcome is not None:
        headers["Sandrun-Verdict"] = job.outcome.verdict.value
        if job.outcome.exit_code is not None:
            headers["Sandrun-Exit-Code"] = str(job.outcome.exit_code)
    return job_text(job, headers=headers)


def _result(job: Job) -> dict[str, Any]:
    outcome, logs = job.outcome, job.logs
    stdout, stderr = logs.bytes_of(STDOUT), logs.bytes_of(STDERR)
    files = job.outputs.files if job.outputs is not None else ()
    images, images_left_out = images_of(job)
    body: dict[str, Any] = {
        "job_id": job.job_id,
        "status": job.state.value,
        "verdict": outcome.verdict.value if outcome else None,
        "exit_code": outcome.exit_code if outcome else None,
        "signal": outcome.signal if outcome else None,
        "detail": outcome.detail if outcome else None,
        "output": logs.bytes_of().text,
        "stdout": stdout.text,
        "stderr": stderr.text,
        **truncation.members(job),
        "hints": hint_documents(job),
        "metrics": metrics_of(job),
        "files": Items(lambda: (detail_of(job, file) for file in files)),
        "left_out": left_out_of(job),
        "images": images,
        "images_left_out": images_left_out,
        "receipt": receipt_document(job),
        "expires_at": expiry_of(job) if files else None,
    }
    if not (stdout.is_utf8 and stderr.is_utf8):  # the text above has replacement characters
        body["stdout_base64"] = stdout.base64
        body["stderr_base64"] = stderr.base64
    return body
