"""Operations that run something and give its result."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from sandrun_client import jobs, outputs, receipts
from sandrun_client.errors import InvalidUpload, SandrunError
from sandrun_client.exchange import Flow, Policy, Progress, Request, ask
from sandrun_client.models import JobOptions, Result, Submitted
from sandrun_shared import languages, orders

TIMEOUT_SECONDS = 3600.0  # the longest that a server allows unless it was told otherwise
QUEUE_SECONDS = 600.0  # that a run may wait for its turn in addition


def run(policy: Policy, code: str, files: Mapping[str, str], options: JobOptions) -> Flow[Result]:
    """Run code in one request; hanging up cancels it."""
    asked: dict[str, Any] = {**options}
    interpreter = asked["interpreter"] = asked.get("interpreter") or languages.DEFAULT
    body = {"code": code, **asked, **({"files": dict(files)} if files else {})}
    silence = float(asked.get("timeout") or TIMEOUT_SECONDS) + QUEUE_SECONDS
    reply = yield from ask(policy, Request("POST", "/run", json=body, read_seconds=silence))
    document = reply.document()
    result = jobs.read(Result.of_run, document)
    if policy.verify_with is not None:
        receipt = receipts.check(document.get("receipt"), policy.verify_with)
        receipts.check_ending(receipt, document)
        receipts.check_logs(receipt, result.logs)
        receipts.check_files(receipt, result.files)
        language = languages.canonical(interpreter)
        name = languages.file_name_of(language)
        ran = languages.code_for(language, code.encode())
        uploaded = {**{path: text.encode() for path, text in files.items()}, name: ran}
        receipts.check_job(
            receipt,
            orders.bundle_sha256(uploaded.items()),
            {**asked, "interpreter": language, "entrypoint": name},
        )
    return result


def run_and_wait(
    policy: Policy,
    *,
    code: str | bytes | None,
    directory: str | os.PathLike[str] | None,
    entrypoint: str | None,
    files: Mapping[str, str | bytes],
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
    files = yield from outputs.list_outputs(policy, job.job_id) if status.output_files else _nothing()
    images = yield from outputs.images_of(policy, job.job_id, files)
    return Result.of_status(status, logs, files, images)


def _nothing() -> Flow[tuple[Any, ...]]:
    yield from ()
    return ()
