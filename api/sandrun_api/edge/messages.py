"""HTTP/1.1 messages as h11 reads them, and what RFC 9112 and RFC 9110 ask of a server beyond that.

Whatever two readers of a connection could take for different requests is refused, and the connection closed.
"""

import ipaddress
import re

import h11
from h11._receivebuffer import ReceiveBuffer

EXTENSION_BYTES = 16 << 10  # of all chunks of a request; they mean nothing here (RFC 9112, 7.1.1)

_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_FOLD = re.compile(rb"\n[ \t]")
_CODINGS = re.compile(rb"\ntransfer-encoding:([^\r\n]*)", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
# uri-host [ ":" port ] (RFC 9110, 7.2; RFC 3986, 3.2.2)
_HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)
# Fields that say one thing: two of them say nothing (RFC 9110, 5.3).
_SINGLE = frozenset({b"content-type", b"idempotency-key", b"if-range", b"last-event-id", b"origin", b"range"})


class Malformed(h11.RemoteProtocolError):
    """A message that is not taken: its status, and a sentence for the client that quotes nothing of it."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason, error_status_hint=status)
        self.reason = reason


class Connection(h11.Connection):
    """The server's side of a connection."""

    def __init__(self, most_incomplete_bytes: int) -> None:
        super().__init__(h11.SERVER, most_incomplete_bytes)
        self._buffer = _Buffer()
        self._receive_buffer = self._buffer
        self._skipped = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event. Raises RemoteProtocolError, after which the connection is of no more use."""
        if self.their_state is h11.IDLE and not self._skipped:
            if self._buffer.is_empty_line():
                return h11.NEED_DATA
            self._skipped = self._buffer.skip_empty_line()
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        self._skipped = False
        self._buffer.extension_bytes = 0
        try:
            return _checked(event)
        except Malformed:
            self._process_error(self.their_role)
            raise


class _Buffer(ReceiveBuffer):
    """What has arrived and is not read yet; lines are checked as they are taken out."""

    def __init__(self) -> None:
        super().__init__()
        self.extension_bytes = 0
        self._takes_lines = False

    def is_empty_line(self) -> bool:
        """Whether an empty line, or a part of one, is all there is."""
        return bytes(self._data[:3]) in (b"\r", b"\r\n")

    def skip_empty_line(self) -> bool:
        """Take away one empty line, which some clients send after a body (RFC 9112, 2.2)."""
        found = self._data.startswith(b"\r\n")
        if found:
            self._extract(2)
        return found

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """The lines of a head or of trailers, when all are there. Raises Malformed."""
        self._takes_lines = True
        try:
            return super().maybe_extract_lines()
        finally:
            self._takes_lines = False

    def maybe_extract_next_line(self) -> bytearray | None:
        """The line before a chunk, when it is there, without its extensions. Raises Malformed."""
        line = super().maybe_extract_next_line()
        if line is None:
            return None
        size, semicolon, extensions = line[:-2].partition(b";")
        if not semicolon:
            return line
        if _LINE_END.search(extensions) or b"\0" in extensions:
            raise Malformed("A chunk's extensions have a line break or a NUL.")
        self.extension_bytes += len(extensions)
        if self.extension_bytes > EXTENSION_BYTES:
            raise Malformed(f"The chunks have more than {EXTENSION_BYTES >> 10} KiB of extensions.")
        return size.rstrip(b" \t") + b"\r\n"

    def _extract(self, count: int) -> bytearray:
        taken = super()._extract(count)
        if self._takes_lines:
            _check_lines(taken)
        return taken


def _check_lines(taken: bytearray) -> None:
    """Refuse what h11 mends (RFC 9112, 2.2 and 5.2), and codings that leave the body's end open (6.3)."""
    if _LINE_END.search(taken):
        raise Malformed("Lines must end with CR LF, and neither may be anywhere else.")
    if _FOLD.search(taken):
        raise Malformed("A header field must be on one line: it must not be folded.")
    fields = _CODINGS.findall(taken)
    codings = [coding.strip(b" \t").lower() for value in fields for coding in value.split(b",")]
    if fields and (codings[-1] != b"chunked" or codings.count(b"chunked") > 1):
        raise Malformed("The last Transfer-Encoding must be chunked, and no other.")


def _checked(request: h11.Request) -> h11.Request:
    """The request with its target in origin form. Raises Malformed."""
    if request.http_version < b"1.0" or request.http_version >= b"2":
        raise Malformed("Only HTTP/1.0 and HTTP/1.1 are spoken here.", 505)
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            raise Malformed("A request has either Transfer-Encoding or Content-Length, not both.")
        if request.http_version == b"1.0":
            raise Malformed("HTTP/1.0 has no Transfer-Encoding.")
    if b"host" not in names and request.http_version != b"1.0":
        raise Malformed("The Host header field is missing.")
    for name in _SINGLE.intersection(names):
        if names.count(name) > 1:
            raise Malformed(f"The header field {name.decode()} is there more than once.")
    _check_host(next((value for name, value in request.headers if name == b"host"), b""))
    return _in_origin_form(request)


def _check_host(value: bytes) -> None:
    match = _HOST.fullmatch(value)
    try:
        if match is not None and match[1] is not None:
            ipaddress.IPv6Address(match[1].decode())
    except ValueError:
        match = None
    if match is None:
        raise Malformed("The Host header field is not a host and, perhaps, a port.")


def _in_origin_form(request: h11.Request) -> h11.Request:
    """The request with a path as its target (RFC 9112, 3.2). Raises Malformed."""
    target, method = request.target, request.method
    if method == b"CONNECT":
        raise Malformed("This is no proxy: there is no CONNECT.", 501)
    if b"#" in target:
        raise Malformed("The target of a request has no fragment (#).")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return request
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not match[1]:
        raise Malformed("The target of a request is a path, or an http or https URL.")
    authority, path = match[1], match[2]
    _check_host(authority)
    if not path.startswith(b"/"):
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path
    # What Host says does not count then (RFC 9112, 3.2.2).
    headers = [(name, value) for name, value in request.headers.raw_items() if name.lower() != b"host"]
    return h11.Request(
        method=method,
        headers=[(b"Host", authority), *headers],
        target=path,
        http_version=request.http_version,
    )
