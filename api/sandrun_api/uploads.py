"""Uploads: a multipart body streamed into memory, bounded, and checked; nothing touches a disk."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sandrun_api import archives
from sandrun_api.budget import Reservation
from sandrun_api.contents import HEAD_BYTES, MANIFEST_BYTES, MANIFEST_NAME, Bounds, Contents, Table
from sandrun_api.errors import ApiError, bad_request
from sandrun_api.memfds import Memfd, digest_of, sha256_of
from sandrun_api.threads import Blocking
from sandrun_shared.jobs import UploadKind
from sandrun_shared.orders import SIZE_DIGITS
from sandrun_shared.settings import Settings

OVERHEAD_BYTES = 2 << 20  # of a body besides the files: the manifest, the parts' headers


@dataclass(frozen=True)
class Upload:
    """A received upload: its bytes, their layout, what they hold, their SHA-256, the manifest's bytes.

    The reservation counts the bytes, and check_bytes for what is needed only until the job is submitted.
    """

    memfd: Memfd
    kind: UploadKind
    contents: Contents
    sha256_hex: str
    manifest: bytes | None
    reservation: Reservation
    check_bytes: int

    def close(self) -> None:
        """Forget the bytes."""
        self.memfd.close()
        self.reservation.close()


class _Bundle:
    """Files one after the other, as `orders.encode_bundle` lays them out, written as they arrive."""

    def __init__(self, memfd: Memfd, table: Table, reservation: Reservation) -> None:
        self.memfd = memfd
        self._table = table
        self._reservation = reservation
        self.check_bytes = 0  # counted for the table
        self._size_at = 0
        self._start = 0
        self._name = ""
        self._path = ""

    def begin(self, name: str) -> None:
        """Start a file."""
        self._table.count()
        self._name, self._path = name, self._table.add_file(name)
        self._count()
        self.memfd.append(self._path.encode("utf-8", "surrogateescape") + b"\0")
        self._size_at = self.memfd.size
        self.memfd.append(b"0" * SIZE_DIGITS + b"\0")
        self._start = self.memfd.size

    def write(self, data: bytes | memoryview) -> None:
        """More of the file."""
        self._table.grow(len(data), self._name)
        self.memfd.append(data)

    def end(self) -> None:
        """The file is complete."""
        size = self.memfd.size - self._start
        self.memfd.write_at(self._size_at, b"%0*d" % (SIZE_DIGITS, size))
        self._table.keep_head(self._path, self.memfd.read_at(self._start, min(size, HEAD_BYTES)))
        limit = self._table.limit_of(self._path)
        if limit is not None:
            self._table.keep(self._path, self.memfd.read_at(self._start, min(size, limit + 1)))
        self._count()

    def _count(self) -> None:
        grown = self._table.held_bytes - self.check_bytes
        self._reservation.ask(grown)
        self.check_bytes += grown


class _Receiver:
    """The callbacks of the multipart parser: one part after the other, into its place."""

    def __init__(self, settings: Settings, reservation: Reservation) -> None:
        limits = settings.limits
        self.bounds = Bounds(
            limits.disk_mb << 20, settings.api.archive_members, settings.api.archive_check_seconds
        )
        self.table = Table(Bounds(self.bounds.total_bytes, self.bounds.members, float("inf")))
        self.memfd = Memfd.create("upload")
        self.archive: tuple[str, UploadKind] | None = None
        self.manifest: bytearray | None = None
        self.complete = False
        self._reservation = reservation
        self._bundle: _Bundle | None = None
        self._files = 0
        self._received = 0  # bytes of files
        self._limit = settings.api.upload_bytes
        self._headers: dict[bytes, bytes] = {}
        self._field = bytearray()
        self._value = bytearray()
        self._sink: Callable[[memoryview], None] = self._refuse
        self._finish: Callable[[], None] = lambda: None

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """What the parser calls."""
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": lambda data, start, end: self._sink(memoryview(data)[start:end]),
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._headers = {}

    def _part_end(self) -> None:
        self._finish()

    def _header_end(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if disposition != b"form-data" or name not in ("files", "manifest"):
            raise bad_request("A part of the upload is named neither 'files' nor 'manifest'.")
        if name == "manifest":
            if self.manifest is not None:
                raise bad_request("The upload has more than one 'manifest'.")
            self.manifest = bytearray()
            self._sink, self._finish = self._manifest_data, lambda: None
            return
        file_name = options.get(b"filename", b"").decode("utf-8", "surrogateescape")
        if not file_name:
            raise bad_request("A part named 'files' has no filename.")
        self._files += 1
        kind = archives.kind_of_name(file_name)
        if self._files == 1 and kind is not None:
            self.archive = (file_name, kind)
            self._sink, self._finish = self._archive_data, lambda: None
            return
        if self._bundle is None:
            self._bundle = self._start_bundle()
        self._bundle.begin(file_name)
        self._sink, self._finish = self._bundle_data, self._bundle.end

    def _start_bundle(self) -> _Bundle:
        if self.archive is None:
            return _Bundle(self.memfd, self.table, self._reservation)
        # The archive came with other files: it is one of them.
        bundle = _Bundle(Memfd.create("upload"), self.table, self._reservation)
        first, self.memfd = self.memfd, bundle.memfd
        try:
            self._reservation.ask(first.size)  # there twice for a moment
            bundle.begin(self.archive[0])
            for piece in first.pieces(0, first.size):
                bundle.write(piece)
            bundle.end()
            self._reservation.add(-first.size)
        finally:
            first.close()
        self.archive = None
        return bundle

    def _manifest_data(self, data: memoryview) -> None:
        if self.manifest is None:
            self.manifest = bytearray()
        if len(self.manifest) + len(data) > MANIFEST_BYTES:
            raise ApiError(413, f"The manifest has more than {MANIFEST_BYTES >> 10} KiB.")
        self._reservation.ask(len(data))
        self.manifest += data

    def _take(self, size: int) -> None:
        self._received += size
        if self._received > self._limit:
            raise too_large(self._limit)
        self._reservation.ask(size)

    def _archive_data(self, data: memoryview) -> None:
        self._take(len(data))
        self.memfd.append(data)

    def _bundle_data(self, data: memoryview) -> None:
        self._take(len(data))
        if self._bundle is not None:
            self._bundle.write(data)

    def _refuse(self, _: memoryview) -> None:
        raise bad_request("The multipart body has data outside of its parts.")

    def _end(self) -> None:
        self.complete = True

    @property
    def check_bytes(self) -> int:
        """What is counted besides the bytes of the files."""
        return len(self.manifest or b"") + (self._bundle.check_bytes if self._bundle is not None else 0)

    @property
    def has_files(self) -> bool:
        """Whether any file came."""
        return self._files > 0


def too_large(limit: int) -> ApiError:
    """The 413 of an upload above the limit, in bytes."""
    return ApiError(413, f"The upload has more than {limit} bytes.")


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart body. Raises ApiError (415, 400)."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise ApiError(415, "Send multipart/form-data with parts named 'files' and 'manifest'.")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise bad_request("The multipart body has no boundary.")
    return boundary


async def receive(
    content_type: str,
    content_length: str | None,
    body: AsyncIterator[bytes],
    settings: Settings,
    *,
    reservation: Reservation,
    blocking: Blocking,
) -> Upload:
    """Receive and check one upload; its memory, the reservation too, is the caller's to close.

    `blocking` runs the check. Raises ApiError, and then everything is closed.
    """
    limit = settings.api.upload_bytes
    most = limit + OVERHEAD_BYTES
    boundary = boundary_of(content_type)
    if content_length is not None and content_length.isdigit() and int(content_length) > most:
        raise too_large(limit)
    receiver = _Receiver(settings, reservation)
    try:
        received = 0
        try:
            parser = MultipartParser(boundary, receiver.callbacks())  # type: ignore[arg-type]
            async for chunk in body:
                received += len(chunk)
                if received > most:
                    raise too_large(limit)
                parser.write(chunk)
            parser.finalize()
        except FormParserError:
            raise bad_request("The multipart body is malformed.") from None
        if not receiver.complete:
            raise bad_request("The multipart body is cut: its last boundary is missing.")
        if not receiver.has_files:
            raise bad_request("The upload has no part named 'files'.")
        return await _finish(receiver, reservation, blocking)
    except BaseException:
        receiver.memfd.close()
        reservation.close()
        raise


async def _finish(receiver: _Receiver, reservation: Reservation, blocking: Blocking) -> Upload:
    memfd, check_bytes = receiver.memfd, receiver.check_bytes
    reservation.add(memfd.size + check_bytes - reservation.size)  # what lies between bundled files
    if receiver.archive is None:
        kind, contents = UploadKind.bundle, receiver.table.contents()
        digest = await digest_of(memfd, blocking)
    else:
        kind = receiver.archive[1]
        contents, digest = await blocking(_looked_through, memfd, kind, receiver.bounds)
        reservation.ask(contents.held_bytes)
        check_bytes += contents.held_bytes
    manifest = bytes(receiver.manifest) if receiver.manifest is not None else contents.kept.get(MANIFEST_NAME)
    return Upload(memfd, kind, contents, digest, manifest, reservation, check_bytes)


def _looked_through(memfd: Memfd, kind: UploadKind, bounds: Bounds) -> tuple[Contents, str]:
    """What an archive holds, and its SHA-256. Blocks. Raises ApiError."""
    return archives.check(memfd, kind, bounds), sha256_of(memfd)
