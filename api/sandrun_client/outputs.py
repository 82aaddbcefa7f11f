"""Operations on what a job left: list it, fetch a file, fetch everything."""

import base64
import binascii
import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote

from sandrun_client import receipts
from sandrun_client.errors import ConnectionFailed, InvalidTarget, UnexpectedAnswer
from sandrun_client.exchange import (
    Close,
    Flow,
    Open,
    Policy,
    Progress,
    Read,
    Reply,
    Request,
    Sleep,
    ask,
    exchange,
)
from sandrun_client.jobs import cancel, get_status, job_path
from sandrun_client.models import Image, OutputFile
from sandrun_shared import images


def list_outputs(policy: Policy, job_id: str) -> Flow[tuple[OutputFile, ...]]:
    """The files the job left; checked if a worker is named."""
    reply = yield from ask(policy, Request("GET", job_path("outputs", job_id)))
    try:
        files = tuple(OutputFile.of(item) for item in reply.document()["details"])
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(f"The server's list of outputs lacks something: {error!r}.") from None
    if policy.verify_with is not None:
        status = yield from get_status(policy, job_id)
        receipts.check_files(receipts.check(status.receipt, policy.verify_with), files)
    return files


def read_file(policy: Policy, job_id: str, path: str, progress: Progress | None) -> Flow[bytes]:
    """One file's bytes."""
    target = io.BytesIO()
    wanted = yield from _signed_digest(policy, job_id, path)
    yield from _fetch(policy, job_id, path, target, wanted=wanted, progress=progress)
    return target.getvalue()


def download_file(
    policy: Policy, job_id: str, path: str, target: str | os.PathLike[str] | None, progress: Progress | None
) -> Flow[Path]:
    """One file, saved as target: a path, a folder, or nothing for its own name here."""
    wanted = yield from _signed_digest(policy, job_id, path)
    place = Path(target or ".")
    if place.is_dir():
        place /= PurePosixPath(path).name
    with _replacing(place) as file:
        yield from _fetch(policy, job_id, path, file, wanted=wanted, progress=progress)
    return place


def download_all(
    policy: Policy,
    job_id: str,
    folder: str | os.PathLike[str],
    keep: bool,
    progress: Progress | None,
) -> Flow[tuple[Path, ...]]:
    """Every file under the folder; then the job is deleted, unless it is to be kept."""
    files = yield from list_outputs(policy, job_id)
    top, total, done = Path(folder), sum(file.size_bytes for file in files), 0
    # All names are looked at before anything is written.
    places = [place_of(top, file.path) for file in files]
    _make_folder(top)
    for file, place in zip(files, places, strict=True):
        _make_folder(place.parent)
        if not place.parent.resolve().is_relative_to(top.resolve()):
            raise InvalidTarget(f"{place} leads out of {top} by a link.")
        with _replacing(place) as target:
            yield from _fetch(
                policy, job_id, file.path, target, wanted=file.sha256, progress=_part(progress, done, total)
            )
        done += file.size_bytes
    if not keep:
        yield from cancel(policy, job_id)
    return tuple(places)


def images_of(policy: Policy, job_id: str, files: tuple[OutputFile, ...]) -> Flow[tuple[Image, ...]]:
    """The images among the files, as many as fit."""
    found: list[Image] = []
    left = images.MAX_BYTES
    for file in files:
        if file.mime_type in images.TYPES and file.size_bytes <= left:
            target = io.BytesIO()
            yield from _fetch(policy, job_id, file.path, target, wanted=file.sha256, progress=None)
            found.append(Image(file.path, file.mime_type, target.getvalue()))
            left -= file.size_bytes
    return tuple(found)


def _signed_digest(policy: Policy, job_id: str, path: str) -> Flow[str | None]:
    if policy.verify_with is None:
        return None
    files = yield from list_outputs(policy, job_id)
    return next((file.sha256 for file in files if file.path == path), None)


def _fetch(
    policy: Policy,
    job_id: str,
    path: str,
    target: IO[bytes],
    *,
    wanted: str | None,
    progress: Progress | None,
) -> Flow[None]:
    """Write the file, going on where a connection broke; wanted is its SHA-256 in hex."""
    etag, failures = "", 0
    while True:
        headers = {"Accept-Encoding": "identity"}
        start = target.tell()
        if start and etag:
            headers |= {"Range": f"bytes={start}-", "If-Range": etag}
        request = Request("GET", job_path("download", job_id, quote(path)), headers=headers)
        reply = yield from exchange(policy, Open(request))
        if reply.status != 206 and start:
            target.seek(0)
            target.truncate()
            start = 0
        etag = reply.headers.get("etag", "")
        total = _total(reply, start)
        try:
            while data := (yield Read()):
                target.write(data)
                if progress is not None:
                    progress(target.tell(), total)
            if total is None or target.tell() == total:
                break
            failure = ConnectionFailed("The download broke off.")
        except ConnectionFailed as error:
            failure = error
        yield Close()
        failures = 1 if target.tell() != start else failures + 1
        if failures > policy.retries:
            raise failure
        yield Sleep(0)
    yield Close()
    if progress is not None:
        progress(target.tell(), total)
    _check_digest(target, path, wanted, reply)


def _total(reply: Reply, start: int) -> int | None:
    length = reply.headers.get("content-length", "")
    return start + int(length) if length.isascii() and length.isdigit() else None


def _check_digest(target: IO[bytes], path: str, wanted: str | None, reply: Reply) -> None:
    if wanted is None:
        header = reply.headers.get("repr-digest", "")
        with contextlib.suppress(binascii.Error):
            if header.startswith("sha-256=:"):
                wanted = base64.b64decode(header.removeprefix("sha-256=:").rstrip(":")).hex()
    if wanted is None:
        return
    target.seek(0)
    if hashlib.file_digest(target, "sha256").hexdigest() != wanted:  # type: ignore[arg-type]
        raise UnexpectedAnswer(f"{path} did not arrive as the job left it: its SHA-256 is another.")


def place_of(top: Path, path: str) -> Path:
    """Where a file goes. Raises InvalidTarget for a name that would go elsewhere."""
    parts = path.split("/")
    outside = any(part in ("", ".", "..") or "\0" in part for part in parts)
    if os.name == "nt":
        outside = outside or any(set(part) & set('\\:*?"<>|') for part in parts)
    if outside:
        raise InvalidTarget(f"The job left a file named {path!r}, which cannot be saved under that name.")
    return top.joinpath(*parts)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidTarget(f"The folder {folder} cannot be made: {error.strerror}.") from None


@contextlib.contextmanager
def _replacing(place: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place when everything in it is well."""
    try:
        fd, name = tempfile.mkstemp(prefix=".sandrun-", dir=place.parent)
    except OSError as error:
        raise InvalidTarget(f"{place} cannot be written: {error.strerror}.") from None
    try:
        with os.fdopen(fd, "w+b") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, place)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise InvalidTarget(f"{place} cannot be written: {error.strerror}.") from None
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _part(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    inner: Any = progress
    return lambda done, _: inner(before + done, total)
