"""The server name in a ClientHello."""

import asyncio
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_helpers.client_hello import MAX_HELLO, HelloError, read_hello, server_name
from support.tls import greeting


def read(data: bytes) -> tuple[bytes, str, bytes]:
    """As read_hello, with what is left."""

    async def run() -> tuple[bytes, str, bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        raw, name = await read_hello(reader)
        return raw, name, await reader.read()

    return asyncio.run(run())


def in_records(message: bytes, size: int) -> bytes:
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


def with_extensions(*extensions: tuple[int, bytes]) -> bytes:
    """The body of a ClientHello."""
    listed = b"".join(kind.to_bytes(2) + len(data).to_bytes(2) + data for kind, data in extensions)
    return b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + len(listed).to_bytes(2) + listed


def named(name: bytes) -> tuple[int, bytes]:
    entry = b"\0" + len(name).to_bytes(2) + name
    return 0, len(entry).to_bytes(2) + entry


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_real_greeting_is_read_and_kept(version: ssl.TLSVersion) -> None:
    sent = greeting("Registry.Test", version)
    assert read(sent + b"early data") == (sent, "registry.test", b"early data")


def test_a_greeting_may_come_in_several_records() -> None:
    message = greeting("registry.test")[5:]
    for size in (1, 3, 100, len(message) - 1):
        assert read(in_records(message, size))[1] == "registry.test"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (greeting(None), "does not say which host"),
        (b"GET / HTTP/1.1\r\n\r\n", "not TLS"),
        (b"\x17\x03\x03\x00\x05hello", "not TLS"),
        (b"\x16\x03\x01\x00\x00", "not TLS"),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "not a TLS greeting"),
        (in_records(b"\x01" + MAX_HELLO.to_bytes(3) + bytes(MAX_HELLO), 8000), "too long"),
        (in_records(greeting("a.test")[5:] + b"\x14", 9000), "data follow"),
    ],
)
def test_what_cannot_be_checked_is_refused(sent: bytes, why: str) -> None:
    with pytest.raises(HelloError, match=why):
        read(sent)


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        (with_extensions(named(b"a.test"), named(b"b.test")), "does not say which host"),
        (with_extensions((0xFE0D, b"x"), named(b"a.test")), "ECH"),
        (with_extensions((0, b"\0\x03\0\0\0")), "cannot be read"),
        (with_extensions((0, named(b"a.test")[1] + b"x")), "cannot be read"),
        (with_extensions(named("ä.test".encode())), "cannot be read"),
        (with_extensions(named(b"a.test"))[:-1], "cannot be read"),
        (with_extensions()[:-2], "does not say which host"),
        (b"", "cannot be read"),
    ],
)
def test_no_name_or_more_than_one_is_refused(hello: bytes, why: str) -> None:
    with pytest.raises(HelloError, match=why):
        server_name(hello)


def test_a_greeting_of_ours_is_read() -> None:
    assert server_name(with_extensions((10, b"x"), named(b"A.test"))) == "a.test"


@given(data=st.data())
def test_nothing_but_a_refusal_comes_of_nonsense(data: st.DataObject) -> None:
    sent = bytearray(greeting("registry.test"))
    for place in data.draw(st.lists(st.integers(0, len(sent) - 1), max_size=4)):
        sent[place] = data.draw(st.integers(0, 255))
    try:
        raw, name, _ = read(bytes(sent[: data.draw(st.integers(0, len(sent)))]))
    except (HelloError, asyncio.IncompleteReadError):
        return
    assert name.isascii()
    assert raw == bytes(sent[: len(raw)])
