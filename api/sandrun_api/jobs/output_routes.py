"""The files a job left: a list, an archive of all, one at a time."""

import base64
import re
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import quote

from fastapi import APIRouter
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from sandrun_api.admission.budget import Reservation
from sandrun_api.edge.clients import client_of
from sandrun_api.edge.json_pieces import Items
from sandrun_api.errors import ApiError
from sandrun_api.jobs import truncation
from sandrun_api.jobs.outputs import OutputFile, Outputs, gather, tar_gz
from sandrun_api.jobs.receipts import receipt_header
from sandrun_api.jobs.responses import JobResponse, at_once, job_document
from sandrun_api.jobs.schemas import JobId, OutputList, OutputPath, answers
from sandrun_api.jobs.service import JobService
from sandrun_api.jobs.views import detail_of, job_of, left_out_of, outputs_of, service_of
from sandrun_shared.memfds import PIECE, Memfd
from sandrun_shared.settings import Settings


class _Name(PathConvertor):
    """A path as the file system takes it; Starlette's own stops at a line's end."""

    regex = r"[\s\S]*"


register_url_convertor("name", _Name())
router = APIRouter(tags=["outputs"])

ARCHIVE_BYTES = 512 << 10  # that the making of one archive holds: a compressor's window, pieces on their way

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILE = {"application/octet-stream": _BINARY, "*/*": _BINARY}  # the former for clients that need a name


@router.get(
    "/outputs/{job_id}",
    operation_id="listOutputs",
    summary="The files a job left",
    responses=answers(OutputList, 404, 409),
)
async def list_outputs(request: Request, job_id: JobId) -> Response:
    """Paths, sizes, digests and where to get them."""
    job = job_of(request, job_id)
    outputs = outputs_of(job)
    files = outputs.files if outputs is not None else ()
    body = {
        "files": Items(lambda: (file.path for file in files)),
        "details": Items(lambda: (detail_of(job, file) for file in files)),
        "truncated": bool(job.outcome and job.outcome.outputs_truncated),
        "left_out": left_out_of(job),
    }
    return job_document(job, body)


@router.get(
    "/download/{job_id}",
    operation_id="downloadOutputs",
    summary="All files as a tar.gz; then the job is deleted",
    responses={
        **answers(None, 404, 409),
        200: {
            "description": "The archive",
            "headers": truncation.HEADERS,
            "content": {"application/gzip": _BINARY},
        },
    },
)
async def download_outputs(request: Request, job_id: JobId) -> Response:
    """The archive; the job is deleted only once the body was sent whole."""
    job = job_of(request, job_id)
    outputs = outputs_of(job)
    service = service_of(request)
    settings: Settings = request.app.state.settings
    packed = tar_gz(outputs) if outputs is not None else tar_gz(Outputs(Memfd(-1), ()))
    headers = {
        "content-disposition": f'attachment; filename="{job_id}.tar.gz"',
        **receipt_header(job),
        **truncation.files_header(job),
    }
    client = client_of(request)
    held = Reservation(service.budget, client)

    def lease() -> Callable[[], None]:
        held.charge(ARCHIVE_BYTES)
        end = job.lease()

        def ended() -> None:
            end()
            held.close()

        return ended

    return JobResponse(
        _in_thread(packed, service, client),
        lease,
        headers=headers,
        media_type="application/gzip",
        sent=lambda: service.delete(job),
        patience_seconds=settings.api.send_seconds,
    )


@router.get(
    "/outputs/{job_id}/{path:name}",
    operation_id="downloadFileAlias",
    summary="One file, under its older address",
    responses={**answers(None, 404, 409, 416), 200: {"description": "The file", "content": _FILE}},
)
@router.get(
    "/download/{job_id}/{path:name}",
    operation_id="downloadFile",
    summary="One file; the job stays",
    responses={**answers(None, 404, 409, 416), 200: {"description": "The file", "content": _FILE}},
)
async def download_file(request: Request, job_id: JobId, path: OutputPath) -> Response:
    """One file with its type, ETag and digest; ranges are served."""
    job = job_of(request, job_id)
    outputs = outputs_of(job)
    file = outputs.by_path.get(path) if outputs is not None else None
    if outputs is None or file is None:
        raise ApiError(404, "The job left no file of that name.")
    etag = f'"{file.entry.sha256_hex}"'
    headers = {**_file_headers(file, etag), **receipt_header(job)}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range", "")
    if request.headers.get("if-range", etag) != etag:
        wanted = ""
    start, end = _range(wanted, file.entry.size_bytes)
    partial = end - start != file.entry.size_bytes
    if partial:
        headers["content-range"] = f"bytes {start}-{end - 1}/{file.entry.size_bytes}"
    headers["content-length"] = str(end - start)
    return JobResponse(
        at_once(outputs.data.pieces(file.entry.offset + start, end - start)),
        job.lease,
        status=206 if partial else 200,
        headers=headers,
        media_type=file.mime_type,
    )


def _file_headers(file: OutputFile, etag: str) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(file.entry.sha256_hex)).decode()
    name = quote(file.path.rsplit("/", 1)[-1], safe="")
    return {
        # Whatever a job left is data: no browser may show it as a page of this server.
        "content-disposition": f"attachment; filename*=UTF-8''{name}",
        "content-security-policy": "sandbox; default-src 'none'",
        "x-content-type-options": "nosniff",
        "accept-ranges": "bytes",
        "etag": etag,
        "repr-digest": f"sha-256=:{digest}:",
    }


def _range(header: str, size: int) -> tuple[int, int]:
    """(start, end) of the one range asked for; all of it for none, or for what RFC 9110 lets us ignore."""
    match = _RANGE.match(header)
    if not match or match[1] == match[2] == "":
        return 0, size
    if match[1] == "":
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < int(match[1]):
            return 0, size
    if start >= end:
        raise ApiError(416, f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})
    return start, end


async def _in_thread(pieces: Iterator[bytes], service: JobService, client: str) -> AsyncIterator[bytes]:
    # A reader has one piece made at a time, so the connections bound what waits.
    while piece := await service.threads.run(client, lambda: gather(pieces, PIECE), is_bounded=True):
        yield piece
