"""Operations that run something and give its result."""

import codecs
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from sandrun_client import jobs, live, receipts
from sandrun_client.errors import InvalidUpload, SandrunError
from sandrun_client.exchange import Emit, Flow, Policy, Progress, Request, ask
from sandrun_client.jobs import Content
from sandrun_client.models import JobOptions, Output, Result, Stream, Submitted
from sandrun_shared import languages, orders

T = TypeVar("T")
Listener = Callable[[str], None]  # gets text as it is printed

TIMEOUT_SECONDS = 3600.0  # the longest that a server allows unless it was told otherwise
QUEUE_SECONDS = 600.0  # that a run may wait for its turn in addition


def run(
    policy: Policy,
    code: str,
    files: Mapping[str, Content],
    options: JobOptions,
    listeners: Mapping[Stream, Listener | None] | None = None,
) -> Flow[Result]:
    """Run code, in one request where that can be; hanging up cancels it.

    A job whose output is listened to, or with files that are no text, is submitted and followed.
    """
    interpreter = options.get("interpreter") or languages.DEFAULT
    options = JobOptions(**{**options, "interpreter": interpreter})
    contents = {path: jobs.content(value) for path, value in files.items()}
    listening = {stream: heard for stream, heard in (listeners or {}).items() if heard is not None}
    texts = _texts(contents)
    if listening or texts is None:
        return (yield from _run_as_job(policy, code, contents, options, listening))
    language = languages.canonical(interpreter)
    options, extra = jobs.with_packages(options, language, contents)
    texts |= {name: data.decode() for name, data in extra.items()}
    asked: dict[str, Any] = {**options}
    body = {"code": code, **asked, **({"files": texts} if texts else {})}
    silence = float(asked.get("timeout") or TIMEOUT_SECONDS) + QUEUE_SECONDS
    reply = yield from ask(policy, Request("POST", "/run", json=body, read_seconds=silence))
    document = reply.document()
    result = jobs.read(Result.of_run, document)
    if policy.verify_with is not None:
        receipt = receipts.check(document.get("receipt"), policy.verify_with)
        receipts.check_ending(receipt, document)
        receipts.check_logs(receipt, result.logs)
        receipts.check_files(receipt, result.files)
        name = languages.file_name_of(language)
        ran = languages.code_for(language, code.encode())
        uploaded = {**{path: text.encode() for path, text in texts.items()}, name: ran}
        receipts.check_job(
            receipt,
            orders.bundle_sha256(uploaded.items()),
            {**asked, "interpreter": language, "entrypoint": name},
        )
    return result


def _texts(contents: Mapping[str, bytes]) -> dict[str, str] | None:
    """The files as JSON can say them, None if one of them is no text."""
    try:
        return {path: data.decode() for path, data in contents.items()}
    except UnicodeDecodeError:
        return None


def _run_as_job(
    policy: Policy,
    code: str,
    files: Mapping[str, bytes],
    options: JobOptions,
    listening: Mapping[Stream, Listener],
) -> Flow[Result]:
    """Submit it, tell listeners what it prints, and delete it unless it left files, as `/run` does."""
    job = yield from jobs.submit_code(
        policy, code=code, files=files, name=None, options=options, progress=None, idempotency_key=None
    )
    try:
        if listening:
            yield from heard(live.stream_logs(policy, job.job_id), _told(listening))
        result = yield from _result_of(policy, job, None)
    except (SandrunError, GeneratorExit):
        raise
    except BaseException:  # interrupted, or a listener failed: nobody waits for the job any more
        with contextlib.suppress(SandrunError, TimeoutError):
            yield from jobs.cancel(policy, job.job_id)
        raise
    if not result.files:
        with contextlib.suppress(SandrunError):
            yield from jobs.cancel(policy, job.job_id)
    return result


def heard(flow: Flow[T], hear: Callable[[Output], None]) -> Flow[T]:
    """The operation, with what it emits given to a function instead."""
    try:
        effect = next(flow)
        while True:
            try:
                if isinstance(effect, Emit):
                    hear(effect.value)
                    answer = None
                else:
                    answer = yield effect
            except GeneratorExit:
                raise
            except BaseException as error:
                effect = flow.throw(error)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()


def _told(listening: Mapping[Stream, Listener]) -> Callable[[Output], None]:
    """Gives listeners the output as text; characters that are cut come with their second half."""
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in listening}

    def hear(item: Output) -> None:
        if item.stream in listening and (text := decoders[item.stream].decode(item.data)):
            listening[item.stream](text)

    return hear


def run_and_wait(
    policy: Policy,
    *,
    code: str | bytes | None,
    directory: str | os.PathLike[str] | None,
    entrypoint: str | None,
    files: Mapping[str, Content],
    exclude: Iterable[str],
    options: JobOptions,
    wait_timeout: float | None,
    progress: Progress | None,
) -> Flow[Result]:
    """Submit, wait, and fetch what the job printed and which files it left."""
    if (code is None) == (directory is None):
        raise InvalidUpload("Give either `code` or `directory`.")
    if code is not None:
        job = yield from jobs.submit_code(
            policy,
            code=code,
            files=files,
            name=entrypoint,
            options=options,
            progress=progress,
            idempotency_key=None,
        )
    elif directory is not None:
        job = yield from jobs.submit_directory(
            policy,
            folder=directory,
            entrypoint=entrypoint,
            exclude=exclude,
            options=options,
            progress=progress,
            idempotency_key=None,
        )
    try:
        return (yield from _result_of(policy, job, wait_timeout))
    except (SandrunError, GeneratorExit):
        raise
    except BaseException:  # interrupted or cancelled: nobody waits for the job any more
        with contextlib.suppress(SandrunError, TimeoutError):  # the first reason counts
            yield from jobs.cancel(policy, job.job_id)
        raise


def _result_of(policy: Policy, job: Submitted, wait_timeout: float | None) -> Flow[Result]:
    status = yield from jobs.wait(policy, job.job_id, wait_timeout)
    if policy.verify_with is not None:
        receipt = receipts.check_status(status, policy.verify_with)
        receipts.check_job(receipt, job.upload_sha256, job.manifest)
    logs = yield from jobs.get_logs(policy, job.job_id)
    from sandrun_client import outputs  # noqa: PLC0415 - slow to load, and the command needs none of it

    files = yield from outputs.list_outputs(policy, job.job_id) if status.output_files else _nothing()
    images = yield from outputs.images_of(policy, job.job_id, files)
    return Result.of_status(status, logs, files, images)


def _nothing() -> Flow[tuple[Any, ...]]:
    yield from ()
    return ()
