"""Parse the server name in a TLS client's ClientHello (RFC 8446, 4.1.2).

A front end that many sites share selects the site by this name, not by the address. Therefore a tunnel to one
listed host would reach each of its neighbours if the name were not checked.
"""

import asyncio
from collections.abc import Iterator

MAX_HELLO = 16 << 10  # bytes; post-quantum key shares take about 2,000
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ENCRYPTED_HELLO = 0, 0xFE0D  # RFC 6066, RFC 9849
_HOST_NAME = 0


class HelloError(Exception):
    """The ClientHello has no server name that can be checked; the text says why."""


async def read_hello(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """Read up to the end of the ClientHello; returns these bytes and the name in lower case.

    Raises HelloError, asyncio.IncompleteReadError.
    """
    raw, message = b"", b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4]):
        head = await reader.readexactly(5)
        size = int.from_bytes(head[3:])
        if head[0] != _HANDSHAKE or head[1] != 3 or not size:
            raise HelloError("the data are not TLS")
        if len(message) + size > MAX_HELLO:
            raise HelloError("its TLS greeting is too long")
        record = await reader.readexactly(size)
        raw, message = raw + head + record, message + record
        if message[0] != _CLIENT_HELLO:
            raise HelloError("the data are not a TLS greeting")
    if len(message) != 4 + int.from_bytes(message[1:4]):
        raise HelloError("data follow its TLS greeting before the answer")
    return raw, server_name(message[4:])


def server_name(hello: bytes) -> str:
    """Parse the one name in the body of a ClientHello, in lower case. Raises HelloError."""
    extensions = list(_extensions(hello))
    kinds = [kind for kind, _ in extensions]
    if _ENCRYPTED_HELLO in kinds:
        raise HelloError("its TLS greeting has an encrypted one inside (ECH), which cannot be checked")
    names = [data for kind, data in extensions if kind == _SERVER_NAME]
    if len(names) != 1:
        raise HelloError("its TLS greeting does not say which host it wants (SNI)")
    entries, rest = _vector(names[0], 2)
    if rest or entries[:1] != bytes([_HOST_NAME]):
        raise HelloError("its TLS greeting cannot be read")
    name, more = _vector(entries[1:], 2)
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if more or not text:
        raise HelloError("its TLS greeting cannot be read")
    return text.lower()


def _extensions(hello: bytes) -> Iterator[tuple[int, bytes]]:
    rest = hello[2 + 32 :]  # legacy_version, random
    for width in (1, 2, 1):  # legacy_session_id, cipher_suites, legacy_compression_methods
        _, rest = _vector(rest, width)
    if not rest:
        return
    listed, rest = _vector(rest, 2)
    if rest:
        raise HelloError("its TLS greeting cannot be read")
    while listed:
        kind = int.from_bytes(listed[:2])
        data, listed = _vector(listed[2:], 2)
        yield kind, data


def _vector(data: bytes, width: int) -> tuple[bytes, bytes]:
    """Split off a vector whose length field has width bytes (RFC 8446, 3.4); returns it and the rest."""
    end = width + int.from_bytes(data[:width])
    if len(data) < width or len(data) < end:
        raise HelloError("its TLS greeting cannot be read")
    return data[width:end], data[end:]
