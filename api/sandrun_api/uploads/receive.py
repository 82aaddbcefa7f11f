"""Uploads: a multipart body streamed into memory, bounded, and checked; nothing touches a disk."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from sandrun_api.admission.budget import Reservation
from sandrun_api.admission.threads import Blocking, digest_of, in_thread
from sandrun_api.errors import ApiError, bad_request
from sandrun_api.uploads import archives
from sandrun_api.uploads.contents import HEAD_BYTES, MANIFEST_BYTES, MANIFEST_NAME, Bounds, Contents, Table
from sandrun_api.uploads.fields import FieldError, parse_options
from sandrun_api.uploads.multipart import MultipartError, Reader
from sandrun_shared.jobs import UploadKind
from sandrun_shared.memfds import Memfd, sha256_of
from sandrun_shared.orders import SIZE_DIGITS
from sandrun_shared.paths import shown
from sandrun_shared.settings import Settings

OVERHEAD_BYTES = MANIFEST_BYTES + (2 << 20)  # of a body besides the files: the manifest, the parts' headers

# What browsers write for what a quoted string cannot hold (WHATWG HTML, multipart/form-data).
_ENCODED = re.compile("%0A|%0D|%22", re.IGNORECASE)
# A whole path of Windows, which old programs send instead of a name.
_WINDOWS_PATH = re.compile(r"(?:[A-Za-z]:\\|\\\\)(?:.*\\)?", re.DOTALL)
_IS_DATA = f"{MANIFEST_NAME} of the upload is a file like any other: the part 'manifest' counts."
_IDENTITY = ("", "7bit", "8bit", "binary")
_UTF_8 = ("", "utf-8", "us-ascii")
_CHARSET_FIELD = "_charset_"  # what a form's texts are in (RFC 7578, 4.6)
_CHARSET_BYTES = 40


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
    notes: tuple[str, ...] = ()  # what of the upload does not count, in sentences

    def close(self) -> None:
        """Forget the bytes."""
        self.memfd.close()
        self.reservation.close()


class _Bundle:
    """Files one after the other, as `orders.encode_bundle` lays them out, written as they arrive."""

    def __init__(self, memfd: Memfd, table: Table, reservation: Reservation) -> None:
        self.memfd = memfd
        self._table = table
        self._paths: set[str] = set()
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
        if self._path in self._paths:
            raise bad_request(f"The upload has two files '{shown(self._path)}'.")
        self._paths.add(self._path)
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
        self._reservation.reserve(grown)
        self.check_bytes += grown


class _Receiver:
    """Takes the parts of a body, one after the other, each into its place."""

    def __init__(self, settings: Settings, reservation: Reservation) -> None:
        limits = settings.limits
        self.bounds = Bounds(
            limits.disk_mb << 20, settings.api.archive_members, settings.api.archive_check_seconds
        )
        self.table = Table(Bounds(self.bounds.total_bytes, self.bounds.members, float("inf")))
        self.memfd = Memfd.create("upload")
        self.archive: tuple[str, UploadKind] | None = None
        self.manifest: bytearray | None = None
        self._charset: bytearray | None = None
        self._reservation = reservation
        self._bundle: _Bundle | None = None
        self._files = 0
        self._received = 0  # bytes of files
        self._limit = settings.api.upload_bytes
        self._sink: Callable[[memoryview], None] = self._manifest_data
        self._finish: Callable[[], None] = lambda: None

    def begin(self, headers: Mapping[str, bytes]) -> None:
        """A part: into its place. Raises ApiError."""
        name, file_name = _disposition(headers.get("content-disposition"))
        _check_encoding(name, headers)
        self._finish = lambda: None
        if name == "files":
            if not file_name:
                raise bad_request("A part named 'files' has no filename.")
            self._begin_file(file_name)
        elif name == "manifest":
            if self.manifest is not None:
                raise bad_request("The upload has more than one 'manifest'.")
            _check_charset("part 'manifest'", headers.get("content-type", b"").decode("latin-1"))
            self.manifest = bytearray()
            self._sink = self._manifest_data
        elif name == _CHARSET_FIELD and self._charset is None:
            self._charset = bytearray()
            self._sink, self._finish = self._charset_data, self._charset_end
        else:
            raise bad_request(
                f"A part of the upload, '{shown(name)}', is named neither 'files' nor 'manifest'."
            )

    def data(self, piece: memoryview) -> None:
        """More of the part. Raises ApiError."""
        self._sink(piece)

    def end(self) -> None:
        """The part is complete. Raises ApiError."""
        self._finish()

    def _begin_file(self, file_name: str) -> None:
        self._files += 1
        kind = archives.kind_of_name(file_name)
        if self._files == 1 and kind is not None:
            self.archive = (file_name, kind)
            self._sink = self._archive_data
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
            self._reservation.reserve(first.size)  # there twice for a moment
            bundle.begin(self.archive[0])
            for piece in first.pieces(0, first.size):
                bundle.write(piece)
            bundle.end()
            self._reservation.charge(-first.size)
        finally:
            first.close()
        self.archive = None
        return bundle

    def _manifest_data(self, data: memoryview) -> None:
        if self.manifest is None:
            self.manifest = bytearray()
        if len(self.manifest) + len(data) > MANIFEST_BYTES:
            raise ApiError(413, f"The manifest has more than {MANIFEST_BYTES >> 20} MiB.")
        self._reservation.reserve(len(data))
        self.manifest += data

    def _charset_data(self, data: memoryview) -> None:
        if self._charset is not None and len(self._charset) <= _CHARSET_BYTES:
            self._charset += data

    def _charset_end(self) -> None:
        if bytes(self._charset or b"").strip().lower().decode("latin-1") not in _UTF_8:
            raise bad_request("The upload's '_charset_' is not UTF-8, which everything here is.")

    def _take(self, size: int) -> None:
        self._received += size
        if self._received > self._limit:
            raise too_large(self._limit)
        self._reservation.reserve(size)

    def _archive_data(self, data: memoryview) -> None:
        self._take(len(data))
        self.memfd.append(data)

    def _bundle_data(self, data: memoryview) -> None:
        self._take(len(data))
        if self._bundle is not None:
            self._bundle.write(data)

    def close(self) -> None:
        """Forget the bytes."""
        self.memfd.close()
        self.manifest = None

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
    try:
        kind, options = parse_options(content_type)
    except FieldError as error:
        raise bad_request(f"The Content-Type {error}.") from None
    if kind != "multipart/form-data":
        raise ApiError(415, "Send multipart/form-data with parts named 'files' and 'manifest'.")
    return options.get("boundary", "").encode("latin-1", "replace")


def _disposition(value: bytes | None) -> tuple[str, str]:
    """The name of a part, and its filename, "" if it has none. Raises ApiError (400)."""
    if value is None:
        raise bad_request("A part of the upload has no Content-Disposition.")
    try:
        disposition, options = parse_options(value.decode("utf-8", "surrogateescape"))
    except FieldError as error:
        raise bad_request(f"The Content-Disposition of a part {error}.") from None
    if disposition != "form-data" or "name" not in options:
        raise bad_request("The Content-Disposition of a part is not form-data with a name.")
    file_name = _ENCODED.sub(lambda found: unquote(found[0]), options.get("filename", ""))
    whole = _WINDOWS_PATH.match(file_name)
    return options["name"], file_name[whole.end() :] if whole else file_name


def _check_encoding(name: str, headers: Mapping[str, bytes]) -> None:
    for field in ("content-transfer-encoding", "content-encoding"):
        encoding = headers.get(field, b"").decode("latin-1").lower()
        if encoding not in (*_IDENTITY, "identity"):
            raise bad_request(
                f"The part '{shown(name)}' has the {field.title()} '{shown(encoding)}': parts are taken as"
                " they are (RFC 7578, 4.7), so send the bytes themselves."
            )


def _check_charset(what: str, content_type: str) -> None:
    try:
        charset = parse_options(content_type)[1].get("charset", "")
    except FieldError as error:
        raise bad_request(f"The Content-Type of the {what} {error}.") from None
    if charset.lower() not in _UTF_8:
        raise bad_request(f"The {what} is in the charset '{shown(charset)}': send it in UTF-8.")


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
            reader = Reader(boundary, receiver)
            async for chunk in body:
                received += len(chunk)
                if received > most:
                    raise too_large(limit)
                reader.write(chunk)
            reader.finish()
        except MultipartError as error:
            raise bad_request(f"The multipart body {error}.") from None
        if not receiver.has_files:
            raise bad_request("The upload has no part named 'files'.")
        return await _finish(receiver, reservation, blocking)
    except BaseException:
        receiver.close()
        reservation.close()
        raise


async def _finish(receiver: _Receiver, reservation: Reservation, blocking: Blocking) -> Upload:
    memfd, check_bytes = receiver.memfd, receiver.check_bytes
    reservation.charge(memfd.size + check_bytes - reservation.size)  # what lies between bundled files
    if receiver.archive is None:
        kind, contents = UploadKind.bundle, receiver.table.contents()
        digest = await digest_of(memfd, blocking)
    else:
        kind = receiver.archive[1]
        contents, digest = await in_thread(memfd, blocking, _looked_through, kind, receiver.bounds)
        reservation.reserve(contents.held_bytes)
        check_bytes += contents.held_bytes
    manifest = contents.kept.get(MANIFEST_NAME)
    notes = (_IS_DATA,) if manifest is not None and receiver.manifest is not None else ()
    if receiver.manifest is not None:
        manifest = bytes(receiver.manifest)
    return Upload(memfd, kind, contents, digest, manifest, reservation, check_bytes, notes)


def _looked_through(memfd: Memfd, kind: UploadKind, bounds: Bounds) -> tuple[Contents, str]:
    """What an archive holds, and its SHA-256. Blocks. Raises ApiError."""
    return archives.check(memfd, kind, bounds), sha256_of(memfd)
