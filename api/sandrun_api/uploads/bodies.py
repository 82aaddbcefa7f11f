"""Bodies that are one document: received into a memfd, counted as they come, and read once they are whole.

What has arrived of a body lies in a memfd and nowhere else, so its bytes are known exactly, and are gone when
it is closed. A document is decoded in one step without a pause: at any time the copies of one body at
most exist, however many are on their way.
"""

from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request

from sandrun_api.admission.budget import Reservation
from sandrun_api.admission.threads import Blocking, digest_of
from sandrun_api.errors import ApiError, bad_request
from sandrun_api.uploads.contents import Contents
from sandrun_api.uploads.receive import Upload
from sandrun_shared.jobs import UploadKind
from sandrun_shared.memfds import Memfd
from sandrun_shared.orders import bundle_head

BODY_BYTES = 16 << 20  # more than that is an upload


def too_large() -> ApiError:
    """The 413 of a body above the limit."""
    return ApiError(413, f"A run has at most {BODY_BYTES >> 20} MiB; use /submit for more.")


async def receive(request: Request, reservation: Reservation) -> bytes:
    """A whole body, which the reservation goes on counting. Raises ApiError (400, 413, 429, 503)."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > BODY_BYTES:
        raise too_large()
    left = BODY_BYTES
    memfd = Memfd.create("body")
    try:
        async for chunk in request.stream():
            left -= len(chunk)
            if left < 0:
                raise too_large()
            reservation.reserve(len(chunk))
            memfd.append(chunk)
        return memfd.read_at(0, memfd.size)
    except ClientDisconnect:
        raise bad_request("The request was cut.") from None
    finally:
        memfd.close()


class Bundle(NamedTuple):
    """Files in a memfd, as `orders.encode_bundle` lays them out, and their paths."""

    memfd: Memfd
    paths: frozenset[str]


def bundle_of(files: dict[str, bytes], reservation: Reservation) -> Bundle:
    """The files as one bundle. Raises ApiError (429, 503)."""
    memfd = Memfd.create("upload")
    try:
        for path, data in files.items():
            head = bundle_head(path, len(data))
            reservation.reserve(len(head) + len(data))
            memfd.append(head)
            memfd.append(data)
    except BaseException:
        memfd.close()
        raise
    return Bundle(memfd, frozenset(files))


async def upload_of(
    files: Bundle, reservation: Reservation, blocking: Blocking, kind: UploadKind = UploadKind.bundle
) -> Upload:
    """Files that came in a document as an upload, which takes over their memfd and the reservation.

    Raises ApiError (429, 503), and then both are closed.
    """
    try:
        digest = await digest_of(files.memfd, blocking)
    except BaseException:
        files.memfd.close()
        reservation.close()
        raise
    return Upload(files.memfd, kind, Contents(files.paths), digest, None, reservation, 0)
