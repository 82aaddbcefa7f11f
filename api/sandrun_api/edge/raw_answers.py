"""Raw HTTP error responses, for errors raised below ASGI."""

import email.utils

from sandrun_api.errors import ApiError, respond

REASONS = {
    400: "This is not a valid HTTP request.",
    408: "The request did not arrive in time.",
    431: "The request line and headers are too long.",
    501: "This transfer encoding is not supported.",
    505: "This version of HTTP is not spoken here.",
}
_MORE = (
    (b"access-control-allow-origin", b"*"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"connection", b"close"),
)


def refusal(error: ApiError) -> bytes:
    """An HTTP/1.1 answer (RFC 9112) after which the connection is closed."""
    response = respond(error)
    lines = [b"%b: %b\r\n" % header for header in (*response.raw_headers, *_MORE, _date())]
    status = b"HTTP/1.1 %d \r\n" % error.status  # the phrase may be empty (RFC 9112, 4)
    return b"".join([status, *lines, b"\r\n", bytes(response.body)])


def _date() -> tuple[bytes, bytes]:
    """As every answer below 500 has it (RFC 9110, 6.6.1)."""
    return b"date", email.utils.formatdate(usegmt=True).encode()
