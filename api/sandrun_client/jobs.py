"""Operations on jobs: submit, ask, wait, read what it printed, cancel."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from sandrun_client import packing, receipts
from sandrun_client.errors import InvalidUpload, UnexpectedAnswer, WaitTimeout
from sandrun_client.exchange import Call, Flow, Policy, Progress, Request, Send, Sleep, Upload, ask, exchange
from sandrun_client.models import JobOptions, Logs, Status, Submitted
from sandrun_client.packing import Packed
from sandrun_shared import languages

T = TypeVar("T")
Content = str | bytes | os.PathLike[str]  # of a file: text, bytes, or where it is on this machine

WAIT_SECONDS = 30.0  # of one request; the server allows 60, proxies often less
MIN_WAIT_SECONDS = 0.5  # between two requests, should the server not wait at all
ANSWER_SECONDS = 30.0  # beyond what the server was asked to wait


def job_path(route: str, job_id: str, *rest: str) -> str:
    """The path of a route about a job."""
    return "/".join([f"/{route}", quote(job_id, safe=""), *rest])


def submit_code(
    policy: Policy,
    *,
    code: str | bytes,
    files: Mapping[str, Content],
    name: str | None,
    options: JobOptions,
    progress: Progress | None,
    idempotency_key: str | None,
) -> Flow[Submitted]:
    """Submit one file of code, and what it needs besides."""
    interpreter = options.get("interpreter", None if name else languages.DEFAULT)
    language = languages.canonical(interpreter or languages.DEFAULT)
    entrypoint, data = name or languages.file_name_of(language), content(code)
    if not interpreter:
        language = languages.of_file(entrypoint, data)
    data = languages.code_for(language, data)
    if entrypoint in files:
        raise InvalidUpload(f"{entrypoint!r} is the name of the code, and of one of the files.")
    contents = {path: content(value) for path, value in files.items()}
    options, extra = with_packages(options, language, contents)
    if contents or extra:
        packed = packing.pack_files({**contents, **extra, entrypoint: data})
    else:
        packed = packing.pack_code(entrypoint, data)
    manifest: dict[str, Any] = {"entrypoint": entrypoint, **options}
    if interpreter is not None:
        manifest["interpreter"] = interpreter
    return (yield from _submit(policy, packed, manifest, progress, idempotency_key))


def submit_directory(
    policy: Policy,
    *,
    folder: str | os.PathLike[str],
    entrypoint: str | None,
    exclude: Iterable[str],
    options: JobOptions,
    progress: Progress | None,
    idempotency_key: str | None,
) -> Flow[Submitted]:
    """Submit a folder; without an entrypoint its job.json says how it is run."""
    if entrypoint is None and options:
        raise InvalidUpload("Options need an entrypoint; without one job.json in the folder says everything.")
    extra: dict[str, bytes] = {}
    if options.get("packages"):
        language = languages.canonical(
            options.get("interpreter") or languages.of_extension(PurePosixPath(entrypoint or "").suffix)
        )
        names = [path.name for path in Path(folder).iterdir()] if os.path.isdir(folder) else []
        options, extra = with_packages(options, language, dict.fromkeys(names))
    manifest = None if entrypoint is None else {"entrypoint": entrypoint, **options}
    packed = yield Call(lambda: packing.pack_directory(folder, exclude, extra))
    return (yield from _submit(policy, packed, manifest, progress, idempotency_key))


def with_packages(
    options: JobOptions, language: str, files: Mapping[str, Any]
) -> tuple[JobOptions, dict[str, bytes]]:
    """The options as the server takes them, and the file that their packages need. Raises InvalidUpload."""
    if not options.get("packages"):
        options = options.copy()
        options.pop("packages", None)
        return options, {}
    from sandrun_client import dependencies  # noqa: PLC0415 - few jobs need it

    return dependencies.added(options, language, files)


def _submit(
    policy: Policy,
    packed: Packed,
    manifest: dict[str, Any] | None,
    progress: Progress | None,
    idempotency_key: str | None,
) -> Flow[Submitted]:
    # One key for all attempts: should an answer get lost, the next attempt is told the same job.
    key = idempotency_key or os.urandom(16).hex()
    try:
        request = Request(
            "POST",
            "/submit",
            headers={"Idempotency-Key": key},
            upload=Upload(packed.name, packed.file, manifest),
        )
        reply = yield from exchange(policy, Send(request, progress), repeatable=True)
    finally:
        packed.close()
    document = reply.document()
    try:
        return Submitted(
            str(document["job_id"]),
            document.get("queue_position"),
            packed.sha256,
            manifest and dict(manifest),
        )
    except KeyError:
        raise UnexpectedAnswer("The server's answer names no job.") from None


def get_status(policy: Policy, job_id: str, wait: float = 0.0) -> Flow[Status]:
    """The status, as soon as the job is finished or after `wait` seconds; checked if a worker is named."""
    params = {"wait": wait} if wait else {}
    request = Request("GET", job_path("status", job_id), params, read_seconds=wait + ANSWER_SECONDS)
    reply = yield from ask(policy, request)
    status = read(Status.of, reply.document())
    if status.finished and policy.verify_with is not None:
        receipts.check_status(status, policy.verify_with)
    return status


def wait(policy: Policy, job_id: str, wait_timeout: float | None = None) -> Flow[Status]:
    """The status of the finished job. Raises WaitTimeout."""
    started = policy.clock()
    while True:
        asked = policy.clock()
        left = WAIT_SECONDS if wait_timeout is None else wait_timeout - (asked - started)
        if left <= 0:
            raise WaitTimeout(job_id, wait_timeout or 0)
        status = yield from get_status(policy, job_id, min(left, WAIT_SECONDS))
        if status.finished:
            return status
        if policy.clock() - asked < MIN_WAIT_SECONDS:
            yield Sleep(MIN_WAIT_SECONDS)


def get_logs(policy: Policy, job_id: str, offset: int = 0) -> Flow[Logs]:
    """What the job printed, from an offset on; checked if a worker is named and the job is finished."""
    receipt = None
    if policy.verify_with is not None and not offset:
        status = yield from get_status(policy, job_id)
        if status.finished:
            receipt = receipts.check_status(status, policy.verify_with)
    params = {"offset": offset} if offset else {}
    reply = yield from ask(policy, Request("GET", job_path("logs", job_id), params))
    logs = read(Logs.of, reply.document())
    if receipt is not None:
        receipts.check_logs(receipt, logs)
    return logs


def cancel(policy: Policy, job_id: str) -> Flow[None]:
    """Cancel the job if it runs, and delete everything of it."""
    yield from ask(policy, Request("DELETE", job_path("jobs", job_id)))


def read(model: Callable[[dict[str, Any]], T], document: dict[str, Any]) -> T:
    """An answer as a value. Raises UnexpectedAnswer for a document that lacks something."""
    try:
        return model(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(f"The server's answer lacks something: {error!r}.") from None


def content(given: Content) -> bytes:
    """The bytes of a text, of bytes, or of a file of this machine. Raises InvalidUpload."""
    if isinstance(given, str):
        return given.encode("utf-8", "surrogateescape")
    if isinstance(given, (bytes, bytearray, memoryview)):
        return bytes(given)
    if not isinstance(given, os.PathLike):
        kind = type(given).__name__
        raise InvalidUpload(f"The content of a file is text, bytes, or a path of this machine, not {kind}.")
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise InvalidUpload(f"{os.fspath(given)} cannot be read: {error.strerror}.") from None
