"""Judge0's routes: submissions one by one and in batches, languages, statuses, about, config_info.

Source: the documentation of Judge0 CE 1.13.1 and the behaviour of its server. Differences: docs/adapters.md.
"""

import os
import uuid
import weakref
import zipfile
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sandrun_api.adapters.foreign import (
    accept_final_slashes,
    json_object,
    offered,
    rejection_of,
    renderer,
    route_class,
)
from sandrun_api.adapters.judge0.languages import Language, languages
from sandrun_api.adapters.judge0.limits import COMPILE_SECONDS, MAX_BATCH, bounds, config_info
from sandrun_api.adapters.judge0.results import (
    DEFAULT_FIELDS,
    FIELDS,
    STATUSES,
    TEXTS,
    UNFINISHED,
    NotText,
    ending_of,
    serialize,
)
from sandrun_api.adapters.judge0.submission import InvalidSubmission, Submission, parse
from sandrun_api.admission.budget import Reservation
from sandrun_api.admission.threads import in_thread
from sandrun_api.edge.clients import client_of
from sandrun_api.edge.json_pieces import encoded, gathered
from sandrun_api.errors import ApiError, bad_request, bare
from sandrun_api.jobs.model import Job
from sandrun_api.jobs.responses import JSON, JobResponse, at_once, job_document
from sandrun_api.jobs.service import JobService
from sandrun_api.jobs.submission import manifest_of, submit, wait_for
from sandrun_api.jobs.views import json_response, service_of
from sandrun_api.uploads import archives, bodies
from sandrun_api.uploads.bodies import Bundle, bundle_of, upload_of
from sandrun_api.uploads.contents import Bounds
from sandrun_shared.jobs import UploadKind
from sandrun_shared.memfds import Memfd
from sandrun_shared.settings import Settings

VERSION = "1.13.1"  # of the interface; clients choose their numbers of languages by it
MAX_ANSWER_BYTES = 32 << 20  # of the texts of a batch
SPARE_BYTES = 4096  # that adding a file makes an archive longer by, besides the file
TOO_MANY = 429  # from here on an error is not the submission's
_BATCH = "there should be at least one submission in a batch"
_TOO_MANY = f"number of submissions in a batch should be less than or equal to {MAX_BATCH}"
_NOT_TEXT = "cannot be converted to UTF-8, use base64_encoded=true query parameter"
# Fields of a manifest under the names that they have in a submission.
_POINTERS = {
    "/stdin": "stdin",
    "/args": "command_line_arguments",
    "/timeout": "wall_time_limit",
    "/cpu_seconds": "cpu_time_limit",
    "/memory_mb": "memory_limit",
}

render = renderer(lambda reason: {"error": reason})
router = APIRouter(route_class=route_class(render))


class Submissions:
    """The submissions by their tokens. It keeps no job: what the store forgets is gone here too."""

    def __init__(self) -> None:
        self._jobs: weakref.WeakValueDictionary[str, Job] = weakref.WeakValueDictionary()
        self._asked: weakref.WeakKeyDictionary[Job, Submission] = weakref.WeakKeyDictionary()

    def add(self, job: Job, submission: Submission) -> str:
        """The token of a new submission."""
        token = str(uuid.uuid4())
        self._jobs[token] = job
        self._asked[job] = submission
        job.reservation.charge(submission.size_bytes)
        return token

    def find(self, token: str, service: JobService) -> tuple[Job, Submission] | None:
        """The job of a token, unless it was deleted or never existed."""
        job = self._jobs.get(token)
        if job is None or service.store.get(job.job_id) is not job:
            return None
        return job, self._asked[job]


@router.post("/submissions")
async def create_submission(request: Request) -> Response:
    """Take one submission; with `wait=true` its result, and then closing the connection cancels it."""
    service = service_of(request)
    fields = _fields(request)
    rejection = rejection_of(request, render)
    if rejection is not None:
        return rejection
    held = Reservation(service.budget, client_of(request))
    try:
        submission = (await _received(request, held, _of_one))[0]
        if isinstance(submission, InvalidSubmission):
            raise submission
        token, job = await _submit(request, submission)
    except InvalidSubmission as invalid:
        return json_response(invalid.faults, 422)
    finally:
        held.close()
    headers = {"Sandrun-Job-Id": job.job_id, **service.rate_limits(client_of(request))}
    if request.query_params.get("wait") != "true":
        return json_response({"token": token}, 201, headers)
    await wait_for(request, service, job)
    submission = _known(request, token)[1]
    try:
        return job_document(job, _serialized(request, token, job, submission, fields), 201, headers)
    except NotText:
        body = {"token": token, "error": f"some attributes for this submission {_NOT_TEXT}"}
        return json_response(body, 201, headers)


@router.post("/submissions/batch")
async def create_batch(request: Request) -> Response:
    """Take several submissions; each answer is a token or what is wrong."""
    service = service_of(request)
    rejection = rejection_of(request, render)
    if rejection is not None:
        return rejection
    held = Reservation(service.budget, client_of(request))
    answers: list[Any] = []
    taken = False
    try:
        submissions = await _received(request, held, _of_batch)
        while submissions:
            submission = submissions.pop(0)
            try:
                if isinstance(submission, InvalidSubmission):
                    raise submission
                token, _ = await _submit(request, submission)
            except InvalidSubmission as invalid:
                answers.append(invalid.faults)
            except ApiError as error:
                if not taken:
                    raise
                answers.append({"error": [error.reason]})  # the quota ended among them: those before it run
            else:
                answers.append({"token": token})
                taken = True
    finally:
        held.close()
    return json_response(answers, 201 if taken else 422, service.rate_limits(client_of(request)))


def _of_one(document: dict[str, Any]) -> list[Any]:
    return [document]


def _of_batch(document: dict[str, Any]) -> list[Any]:
    asked = document.get("submissions")
    if not isinstance(asked, list) or not asked:
        raise bad_request(_BATCH)
    if len(asked) > MAX_BATCH:
        raise bad_request(_TOO_MANY)
    return asked


@router.get("/submissions/batch")
async def get_batch(request: Request) -> Response:
    """Several submissions; null for one that there is not."""
    tokens = [token for token in request.query_params.get("tokens", "").strip().split(",") if token]
    if not tokens:
        raise bad_request(_BATCH)
    if len(tokens) > MAX_BATCH:
        raise bad_request(_TOO_MANY)
    fields = _fields(request)
    found = [_submissions(request).find(token, service_of(request)) for token in tokens]
    held = sum(job.logs.size + asked.size_bytes for job, asked in filter(None, found))
    if held > MAX_ANSWER_BYTES and TEXTS.intersection(fields):
        raise ApiError(413, "these submissions are too large for one answer: ask for them one by one")
    try:
        body = [
            None if known is None else _serialized(request, token, *known, fields)
            for token, known in zip(tokens, found, strict=True)
        ]
    except NotText:
        raise bad_request(f"some attributes for one or more submissions {_NOT_TEXT}") from None
    ends = [job.lease() for job, _ in filter(None, found)]
    pieces = gathered(encoded({"submissions": body}))

    def ended() -> None:
        for end in ends:
            end()

    return JobResponse(at_once(pieces), lambda: ended, headers={}, media_type=JSON)


@router.get("/submissions/{token}")
async def get_submission(request: Request, token: str) -> Response:
    """One submission, finished or not."""
    fields = _fields(request)
    job, submission = _known(request, token)
    try:
        return job_document(job, _serialized(request, token, job, submission, fields))
    except NotText:
        raise bad_request(f"some attributes for this submission {_NOT_TEXT}") from None


@router.delete("/submissions/{token}")
async def delete_submission(request: Request, token: str) -> Response:
    """Forget a finished submission; what it was comes back a last time, in Base64."""
    fields = _fields(request)
    job, submission = _known(request, token)
    status = ending_of(job, submission).status
    if status in UNFINISHED:
        shown = f"{status} ({STATUSES[status]})"
        raise bad_request(f"submission cannot be deleted because its status is {shown}")
    answer = job_document(job, serialize(token, job, submission, fields, encoded=True))
    service_of(request).delete(job)
    return answer


@router.get("/languages")
@router.get("/languages/all")
async def get_languages(request: Request) -> Response:
    """Every language."""
    return json_response([language.brief() for language in (await _languages(request)).values()])


@router.get("/languages/{number}")
async def get_language(request: Request, number: str) -> Response:
    """One language."""
    found = await _languages(request)
    language = found.get(int(number)) if number.isascii() and number.isdigit() and len(number) < 7 else None
    if language is None:
        raise ApiError(404, "there is no such language")
    return json_response(language.full())


@router.get("/statuses")
async def get_statuses() -> Response:
    """Every status."""
    return json_response([{"id": number, "description": text} for number, text in STATUSES.items()])


@router.get("/about")
async def get_about() -> Response:
    """Which version of Judge0's interface this is."""
    about = {"version": VERSION, "homepage": "", "source_code": "", "maintainer": "Sandrun"}
    return json_response(about)


@router.get("/version")
async def get_version() -> Response:
    """The same as text."""
    return PlainTextResponse(VERSION)


@router.get("/config_info")
async def get_config_info(request: Request) -> Response:
    """Defaults and limits of submissions."""
    return json_response(config_info(request.app.state.settings))


accept_final_slashes(router)


def _submissions(request: Request) -> Submissions:
    submissions: Submissions = request.app.state.submissions
    return submissions


async def _languages(request: Request) -> dict[int, Language]:
    return languages(offered(await service_of(request).worker()))


def _known(request: Request, token: str) -> tuple[Job, Submission]:
    known = _submissions(request).find(token, service_of(request))
    if known is None:
        raise ApiError(404, "there is no such submission: it was deleted, it expired, or it never existed")
    return known


def _is_encoded(request: Request) -> bool:
    return request.query_params.get("base64_encoded") == "true"


def _fields(request: Request) -> tuple[str, ...]:
    asked = [name.strip() for name in request.query_params.get("fields", "").split(",") if name.strip()]
    if "*" in asked:
        return tuple(sorted(FIELDS))
    invalid = [name[:64] for name in asked if name not in FIELDS]
    if invalid:
        raise bad_request(f"invalid fields: [{', '.join(invalid[:20])}]")
    return tuple(asked) or DEFAULT_FIELDS


def _serialized(
    request: Request, token: str, job: Job, submission: Submission, fields: tuple[str, ...]
) -> dict[str, Any]:
    return serialize(token, job, submission, fields, encoded=_is_encoded(request))


async def _received(
    request: Request, held: Reservation, asked: Callable[[dict[str, Any]], list[Any]]
) -> list[Submission | InvalidSubmission]:
    """The submissions that a body asks for, counted until they have become jobs. Raises ApiError."""
    table = await _languages(request)
    body = bodies.receive(request, held)
    # In one step: nothing keeps the body while the submissions are looked at further.
    submissions = _parsed(request, await body, asked, table)
    held.release()
    held.reserve(sum(item.size_bytes for item in submissions if isinstance(item, Submission)))
    return submissions


def _parsed(
    request: Request,
    body: bytes,
    asked: Callable[[dict[str, Any]], list[Any]],
    table: dict[int, Language],
) -> list[Submission | InvalidSubmission]:
    settings: Settings = request.app.state.settings
    found: list[Submission | InvalidSubmission] = []
    try:
        for document in asked(json_object(body)):
            try:
                if not isinstance(document, dict):
                    raise InvalidSubmission({"error": ["is not a JSON object"]})
                found.append(
                    parse(
                        document,
                        encoded=_is_encoded(request),
                        languages=table,
                        bounds=bounds(settings.limits),
                    )
                )
            except InvalidSubmission as invalid:
                found.append(InvalidSubmission(invalid.faults))  # without the frames, which hold the body
    except ApiError as error:
        raise bare(error) from None
    return found


async def _submit(request: Request, submission: Submission) -> tuple[str, Job]:
    """The token and the job of a submission. Raises InvalidSubmission, ApiError."""
    settings: Settings = request.app.state.settings
    service = service_of(request)
    try:
        stdin = (submission.stdin or b"").decode()
    except UnicodeDecodeError:
        raise InvalidSubmission({"stdin": ["is not UTF-8"]}) from None
    numbers = submission.numbers
    extra = COMPILE_SECONDS if submission.language.is_compiled else 0.0
    reservation = Reservation(service.budget, client_of(request))
    try:
        entrypoint, kind, files = await _files(request, submission, reservation)
    except BaseException:
        reservation.close()
        raise
    try:
        manifest = manifest_of(
            entrypoint=entrypoint,
            interpreter=submission.language.interpreter,
            args=list(submission.arguments),
            stdin=stdin,
            timeout=min(numbers["wall_time_limit"] + extra, settings.limits.max_timeout_seconds),
            cpu_seconds=numbers["cpu_time_limit"] + extra,
            memory_mb=int(numbers["memory_limit"]) >> 10,
        )
    except BaseException as error:
        files.memfd.close()
        reservation.close()
        raise (_by_field(error) if isinstance(error, ApiError) else error) from None
    try:
        upload = await upload_of(files, reservation, service.threads.of(client_of(request)), kind)
        most = int(numbers["max_processes_and_or_threads"])
        job, _ = await submit(request, upload, manifest, most_processes=most)
    except ApiError as error:
        raise _by_field(error) from None
    return _submissions(request).add(job, submission), job


def _by_field(error: ApiError) -> Exception:
    """A fault in a manifest as one in the submission that it came from."""
    faults = {
        field: [fault.detail]
        for fault in error.errors
        for pointer, field in _POINTERS.items()
        if fault.pointer.startswith(pointer)
    }
    return InvalidSubmission(faults) if faults else error


async def _files(
    request: Request, submission: Submission, reservation: Reservation
) -> tuple[str, UploadKind, Bundle]:
    """The entrypoint, and the files in a form the sandbox unpacks. Raises InvalidSubmission, ApiError."""
    settings: Settings = request.app.state.settings
    name = submission.language.source_file
    if submission.additional_files is None and name is not None:
        return name, UploadKind.bundle, bundle_of({name: submission.program}, reservation)
    # Twice the files: what is kept to be shown again, and the archive that becomes the job's.
    reservation.reserve(len(submission.additional_files or b"") + len(submission.source_code) + SPARE_BYTES)
    blocking = service_of(request).threads.of(client_of(request))
    memfd = Memfd.create("upload", submission.additional_files or b"")
    try:
        entrypoint, paths, memfd.size = await in_thread(memfd, blocking, _archive, submission, settings)
        reservation.release()
        reservation.reserve(memfd.size)
    except BaseException as error:
        memfd.close()
        if isinstance(error, ApiError) and error.status < TOO_MANY:
            raise InvalidSubmission({"additional_files": [error.reason]}) from None
        raise
    return entrypoint, UploadKind.zip, Bundle(memfd, paths)


def _archive(archive: Memfd, submission: Submission, settings: Settings) -> tuple[str, frozenset[str], int]:
    """The entrypoint of an archive, its files, its size in bytes. Blocks. Raises ApiError."""
    files = _checked(archive, settings)
    name = submission.language.source_file
    if name is not None:
        if name in files:
            raise bad_request(f"has a file '{name}', which is the name of the source code")
        _add(archive, name, submission.program)
        return name, _checked(archive, settings), archive.size
    if files & {"compile", "compile.sh"}:
        raise bad_request("has a script 'compile': programs that are compiled first do not run here")
    for script in ("run", "run.sh"):
        if script in files:
            return script, files, archive.size
    raise bad_request("has no script 'run' or 'run.sh'")


def _add(archive: Memfd, name: str, source: bytes) -> None:
    try:
        with open(os.dup(archive.fileno()), "r+b") as file:
            with zipfile.ZipFile(file, "a") as opened:
                opened.writestr(name, source)
            archive.size = os.fstat(file.fileno()).st_size
    except (zipfile.BadZipFile, OSError, ValueError):  # it could be read, but not continued
        raise bad_request("cannot be read as a zip archive") from None


def _checked(archive: Memfd, settings: Settings) -> frozenset[str]:
    limits = Bounds(
        settings.limits.disk_mb << 20, settings.api.archive_members, settings.api.archive_check_seconds
    )
    return archives.check(archive, UploadKind.zip, limits).files
