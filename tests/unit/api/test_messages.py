"""What RFC 9112 and RFC 9110 say of a request, one case each: taken as what, or refused with which status."""

from dataclasses import dataclass, field

import h11
import pytest

from sandrun_api.edge.messages import EXTENSION_BYTES, Connection

HOST = b"Host: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Seen:
    """What the server understood."""

    targets: list[bytes] = field(default_factory=list)
    hosts: list[bytes] = field(default_factory=list)
    body: bytes = b""
    status: int | None = None
    reason: str = ""
    waits: bool = False


def read(data: bytes, most: int = 32 << 10) -> Seen:
    """Everything a connection makes of these bytes; each request is answered as soon as it is complete."""
    connection, seen = Connection(most), Seen()
    connection.receive_data(data)
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            seen.status, seen.reason = error.error_status_hint, getattr(error, "reason", "")
            assert connection.their_state is h11.ERROR
            return seen
        if event is h11.NEED_DATA:
            seen.waits = True
            return seen
        if isinstance(event, h11.Request):
            seen.targets.append(event.target)
            seen.hosts += [value for name, value in event.headers if name == b"host"]
        elif isinstance(event, h11.Data):
            seen.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=204, headers=[]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return seen
            connection.start_next_cycle()


def get(*lines: bytes, target: bytes = b"/", version: bytes = b"1.1", host: bytes = HOST) -> bytes:
    return b"GET %b HTTP/%b\r\n%b%b\r\n" % (target, version, host, b"".join(line + b"\r\n" for line in lines))


REFUSED = {
    # 9112, 6.1 and 6.3: framing that two readers could see differently.
    "length and coding": (CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "coding and length": (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n" + CHUNKED[17:] + b"0\r\n\r\n", 400),
    "coding of HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "not chunked at last": (get(b"Transfer-Encoding: gzip"), 400),
    "chunked, then another": (get(b"Transfer-Encoding: chunked, gzip"), 400),
    "identity": (get(b"Transfer-Encoding: identity"), 400),
    "no coding at all": (get(b"Transfer-Encoding:"), 400),
    "chunked with a parameter": (get(b"Transfer-Encoding: chunked;x=1"), 400),
    "chunked twice": (get(b"Transfer-Encoding: chunked, chunked"), 400),
    "two fields of chunked": (get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    "two fields, one unknown": (get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"), 400),
    "vertical tab": (get(b"Transfer-Encoding: \x0bchunked"), 400),
    "unknown coding first": (get(b"Transfer-Encoding: gzip, chunked"), 501),
    "coding with a space": (get(b"Transfer-Encoding : chunked"), 400),
    "two lengths": (get(b"Content-Length: 1", b"Content-Length: 2"), 400),
    "a list of lengths": (get(b"Content-Length: 1, 2"), 400),
    "length with a sign": (get(b"Content-Length: +1"), 400),
    "negative length": (get(b"Content-Length: -1"), 400),
    "hexadecimal length": (get(b"Content-Length: 0x1"), 400),
    "length with a space": (get(b"Content-Length: 1 2"), 400),
    "empty length": (get(b"Content-Length:"), 400),
    "length of other digits": (get("Content-Length: \u0661".encode()), 400),
    "length beyond all bounds": (get(b"Content-Length: " + b"9" * 21), 400),
    # 9112, 2.2 and 5: lines.
    "bare LF in the head": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "one bare LF": (b"GET / HTTP/1.1\r\nA: b\nHost: x\r\n\r\n", 400),
    "bare LF at the end": (b"GET / HTTP/1.1\r\nHost: x\r\n\n", 400),
    "bare CR in a value": (get(b"A: b\rTransfer-Encoding: chunked"), 400),
    "bare CR before the colon": (get(b"A\r: b"), 400),
    "CR CR LF": (b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", 400),
    "NUL in a value": (get(b"A: b\0c"), 400),
    "folded": (get(b"A: b", b" c"), 400),
    "folded with a tab": (get(b"Transfer-Encoding:", b"\tchunked"), 400),
    "space before the first field": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "space before the colon": (get(b"A : b"), 400),
    "tab before the colon": (get(b"A\t: b"), 400),
    "no colon": (get(b"A"), 400),
    "no name": (get(b": b"), 400),
    "name with a bracket": (get(b"A(b): c"), 400),
    "name that is no ASCII": (get("é: b".encode()), 400),
    # 9112, 3: the request line.
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a tab": (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "space after the version": (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    "version in lower case": (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "two empty lines": (b"\r\n\r\n" + get(), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/9": (get(version=b"9.9"), 505),
    "HTTP/0.9 by name": (get(version=b"0.9"), 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    # 9112, 3.2: targets.
    "relative": (get(target=b"health"), 400),
    "another scheme": (get(target=b"ftp://x/"), 400),
    "no authority": (get(target=b"http:///x"), 400),
    "user in the authority": (get(target=b"http://user@x/"), 400),
    "fragment": (get(target=b"/a#b"), 400),
    "asterisk of GET": (get(target=b"*"), 400),
    "no ASCII": (get(target="/é".encode()), 400),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    # 9112, 3.2 and 9110, 7.2: Host.
    "no Host": (get(host=b""), 400),
    "no Host of HTTP/1.2": (get(host=b"", version=b"1.2"), 400),
    "two Hosts": (get(b"Host: x"), 400),
    "two Hosts that differ": (get(b"Host: y"), 400),
    "Host with a user": (get(host=b"Host: user@x\r\n"), 400),
    "Host with a path": (get(host=b"Host: x/y\r\n"), 400),
    "Host with a space": (get(host=b"Host: x y\r\n"), 400),
    "Host with a wrong port": (get(host=b"Host: x:y\r\n"), 400),
    "Host that is no IPv6": (get(host=b"Host: [1:2]\r\n"), 400),
    "Host with a scheme": (get(host=b"Host: http://x\r\n"), 400),
    "list of Hosts": (get(host=b"Host: x, y z\r\n"), 400),
    # 9110, 5.3: fields that say one thing.
    "two Origins": (get(b"Origin: null", b"Origin: http://localhost"), 400),
    "two types": (get(b"Content-Type: text/plain", b"content-type: application/json"), 400),
    "two ranges": (get(b"Range: bytes=0-1", b"Range: bytes=2-3"), 400),
    # 9112, 7: chunks.
    "chunk without a size": (CHUNKED + b"\r\n", 400),
    "chunk with a sign": (CHUNKED + b"+1\r\nx\r\n0\r\n\r\n", 400),
    "chunk with 0x": (CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n", 400),
    "chunk with an underscore": (CHUNKED + b"1_0\r\nx\r\n0\r\n\r\n", 400),
    "chunk beyond all bounds": (CHUNKED + b"f" * 21 + b"\r\nx", 400),
    "chunk that is longer": (CHUNKED + b"1\r\nxy\r\n0\r\n\r\n", 400),
    "chunk that ends with LF": (CHUNKED + b"1\r\nx\n0\r\n\r\n", 400),
    "bare LF behind a size": (CHUNKED + b"1\nx\r\n0\r\n\r\n", 400),
    "bare LF in an extension": (CHUNKED + b"1;a\nb\r\nx\r\n0\r\n\r\n", 400),
    "bare CR in an extension": (CHUNKED + b"1;a\rb\r\nx\r\n0\r\n\r\n", 400),
    "NUL in an extension": (CHUNKED + b"1;a\0b\r\nx\r\n0\r\n\r\n", 400),
    "long extension": (CHUNKED + b"1;" + b"a" * EXTENSION_BYTES + b"a\r\nx\r\n0\r\n\r\n", 400),
    "many extensions": (CHUNKED + (b"1;" + b"a" * 1023 + b"\r\nx\r\n") * 20, 400),
    "trailer without a colon": (CHUNKED + b"0\r\nA\r\n\r\n", 400),
    "folded trailer": (CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", 400),
    "bare LF in a trailer": (CHUNKED + b"0\r\nA: b\n\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    data, status = REFUSED[name]
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    seen = read(data + smuggled)
    assert seen.status == status
    assert b"/smuggled" not in seen.targets  # the connection is of no more use
    assert seen.reason == "" or seen.reason.endswith(".")


TAKEN: dict[str, tuple[bytes, bytes, bytes, bytes]] = {
    # data, target, Host, body
    "path and query": (get(target=b"/a?b=c"), b"/a?b=c", b"x", b""),
    "one empty line before": (b"\r\n" + get(), b"/", b"x", b""),
    "HTTP/1.2": (get(version=b"1.2"), b"/", b"x", b""),
    "absolute": (get(target=b"http://y:80/a?b"), b"/a?b", b"y:80", b""),
    "absolute without a path": (get(target=b"HTTPS://y?b"), b"/?b", b"y", b""),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"*", b"x", b""),
    "absolute asterisk": (b"OPTIONS http://y HTTP/1.1\r\nHost: x\r\n\r\n", b"*", b"y", b""),
    "IPv6": (get(host=b"Host: [::1]:8443\r\n"), b"/", b"[::1]:8443", b""),
    "IPv4": (get(host=b"Host: 127.0.0.1:1\r\n"), b"/", b"127.0.0.1:1", b""),
    "empty port": (get(host=b"Host: x:\r\n"), b"/", b"x:", b""),
    "spaces around a value": (get(host=b"Host: \t x \t\r\n"), b"/", b"x", b""),
    "empty value": (get(b"A:"), b"/", b"x", b""),
    "value with tabs, spaces and more": (get("A: b\tc  d é".encode()), b"/", b"x", b""),
    "length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", b"/", b"x", b"ab"),
    "same length twice": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        *(b"/", b"x", b"ab"),
    ),
    "length with zeros": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 02\r\n\r\nab", b"/", b"x", b"ab"),
    "chunks": (CHUNKED + b"1\r\na\r\n01\r\nb\r\n0\r\n\r\n", b"/", b"x", b"ab"),
    "coding in capitals": (
        CHUNKED.replace(b"chunked", b"CHUNKED") + b"1\r\na\r\n0\r\n\r\n",
        b"/",
        b"x",
        b"a",
    ),
    "extensions": (CHUNKED + b'1 ; a = "b;c"\r\na\r\n0;x\r\n\r\n', b"/", b"x", b"a"),
    "trailers": (CHUNKED + b"1\r\na\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\n", b"/", b"x", b"a"),
    "a body with line breaks": (CHUNKED + b"4\r\na\n\rb\r\n0\r\n\r\n", b"/", b"x", b"a\n\rb"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name: str) -> None:
    data, target, host, body = TAKEN[name]
    seen = read(data + get(target=b"/next"))
    assert seen.status is None
    assert (seen.targets, seen.hosts, seen.body) == ([target, b"/next"], [host, b"x"], body)


@pytest.mark.parametrize("name", [*TAKEN, *REFUSED])
def test_however_it_is_cut(name: str) -> None:
    """What is read does not depend on how it arrives."""
    data = (TAKEN | REFUSED)[name][0]  # type: ignore[operator]
    whole = read(data)
    connection, targets, body, status = Connection(32 << 10), [], b"", None
    for byte in data:
        connection.receive_data(bytes([byte]))
        try:
            while (event := connection.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Request):
                    targets.append(event.target)
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif event is h11.PAUSED or isinstance(event, h11.EndOfMessage):
                    break
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            break
    assert (targets, body, status) == (whole.targets, whole.body, whole.status)


def test_http_1_0_needs_no_host() -> None:
    assert read(b"GET / HTTP/1.0\r\n\r\n").targets == [b"/"]


@pytest.mark.parametrize("data", [b"\r", b"\r\n"])
def test_the_rest_of_an_empty_line_is_waited_for(data: bytes) -> None:
    seen = read(data)
    assert seen.waits
    assert seen.status is None
