"""HTTP of the package proxy: CONNECT to allowed hosts, and GET, which it forwards over TLS.

Everything is bounded: connections, the size of a head, bytes in total, idle time. Nothing is logged; a
sandbox can ask what was refused to it.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from sandrun_helpers import addresses as proxy_addresses
from sandrun_helpers import client_hello
from sandrun_helpers.addresses import PORT, AddressRefused, Network
from sandrun_helpers.client_hello import HelloError

MAX_CONNECTIONS = 64
MAX_HEAD = 16 << 10
MAX_NOTES = 20
HEAD_SECONDS = 10.0
CONNECT_SECONDS = 15.0
IDLE_SECONDS = 60.0
PIECE = 64 << 10
NOTES_HOST = "proxy.sandrun.invalid"  # where the sandbox asks what was refused (RFC 6761)
_NAME = re.compile(r"[a-z0-9.-]{1,253}\Z")
_DROPPED = re.compile(
    rb"(proxy-.*|connection|keep-alive|te|trailer|upgrade|transfer-encoding|content-length|host|expect)\Z",
    re.I,
)
_WORDS = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway", 503: "Service Unavailable"}


class Refusal(Exception):
    """An error response: status and a sentence for the client."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Rules:
    """The rules of one proxy: hosts by name, and the total of bytes in both directions."""

    hosts: frozenset[str]
    bytes_left: int
    networks: tuple[Network, ...] = ()
    credentials: dict[str, tuple[str, str]] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    notes: list[str] = field(default_factory=list)

    def check(self, host: str, port: int | None, ports: frozenset[int | None]) -> str:
        """Look a host up in the list; returns its name there. Raises Refusal."""
        name = host.lower().removesuffix(".")
        if not _NAME.match(name):
            raise Refusal(403, "refused: that is not the name of a host")
        if name not in self.hosts:
            raise self.refused(name, "not on this server's list of package hosts ([executor] package_hosts)")
        if port not in ports:
            raise self.refused(name, f"port {port} is not {PORT}")
        return name

    def is_for(self, name: str, wanted: str) -> bool:
        """Whether the server name of a TLS client in a tunnel is the tunnel's host."""
        return wanted == name

    def refused(self, name: str, why: str) -> Refusal:
        """Make a refusal and remember it."""
        return Refusal(403, self._note(f"refused {name}: {why}"))

    def away(self, name: str) -> Refusal:
        """Make the refusal for an unreachable host and remember it."""
        return Refusal(502, self._note(f"unreachable {name}: no connection could be made"))

    def _note(self, text: str) -> str:
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(text)
        return text

    def spend(self, size: int) -> None:
        """Charge bytes. Raises ConnectionAbortedError above the limit."""
        self.bytes_left -= size
        if self.bytes_left < 0:
            self._note("refused: there are more bytes than an installation may take")
            raise ConnectionAbortedError


T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """Serves connections according to the rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the sandbox to its end."""
        self._open += 1
        try:
            if self._open > MAX_CONNECTIONS:
                raise Refusal(503, "too many connections")
            await self._answer(reader, writer)
        except Refusal as refusal:
            await _say(writer, refusal.status, f"sandrun: {refusal}\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # a client that hung up or does not speak HTTP
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head[:-4].split(b"\r\n")
        words = line.decode("ascii").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Refusal(400, "not a request of HTTP/1.1")
        method, target, _ = words
        if method == "CONNECT":
            await self._connect(target, reader, writer)
        elif method in ("GET", "HEAD"):
            await self._fetch(method, target, fields, (reader, writer))
        else:
            raise Refusal(403, "only CONNECT, GET and HEAD are let through")

    async def _connect(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.rpartition(":")
        name = self._rules.check(host, int(port) if port.isdecimal() else None, frozenset({PORT}))
        far = await self._reach(name, None)
        try:
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            far[1].write(await self._hello(name, reader))
            await self._pump_both((reader, writer), far)
        finally:
            far[1].close()

    async def _hello(self, name: str, reader: asyncio.StreamReader) -> bytes:
        """Read the start of a tunnel's TLS, which must name the tunnel's host.

        Raises OSError otherwise; the refusal is only remembered, because an answer would have to be TLS.
        """
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                raw, wanted = await client_hello.read_hello(reader)
        except HelloError as error:
            self._rules.refused(name, str(error))
            raise ConnectionAbortedError from None
        self._rules.spend(len(raw))
        if not self._rules.is_for(name, wanted):
            self._rules.refused(name, "its TLS greeting is for another host")
            raise ConnectionAbortedError
        return raw

    async def _fetch(self, method: str, target: str, fields: list[bytes], near: Streams) -> None:
        """Forward a request in absolute form (RFC 9112, 3.2.2), over TLS whatever its scheme."""
        url = urlsplit(target)
        if url.scheme != "http" or not url.hostname:
            raise Refusal(400, "not a request to a proxy")
        if url.hostname == NOTES_HOST:
            await _say(near[1], 200, "".join(f"{note}\n" for note in self._rules.notes))
            return
        name = self._rules.check(url.hostname, url.port, frozenset({None, 80, PORT}))
        if self._rules.tls is None:
            raise self._rules.refused(name, "only https is let through")
        kept = [line for line in fields if not _DROPPED.match(line.partition(b":")[0].strip())]
        if name in self._rules.credentials:
            user, password = self._rules.credentials[name]
            secret = base64.b64encode(f"{user}:{password}".encode())
            kept = [line for line in kept if line.partition(b":")[0].strip().lower() != b"authorization"]
            kept.append(b"Authorization: Basic " + secret)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        head = [f"{method} {path} HTTP/1.1".encode(), b"Host: " + name.encode(), b"Connection: close", *kept]
        far = await self._reach(name, self._rules.tls)
        try:
            far[1].write(b"\r\n".join(head) + b"\r\n\r\n")
            await far[1].drain()
            await self._pump(far[0], near[1], _Activity())
        finally:
            far[1].close()

    async def _reach(self, name: str, tls: ssl.SSLContext | None) -> Streams:
        """Connect to one of the checked addresses. Raises Refusal."""
        try:
            addresses = await proxy_addresses.resolve(name, self._rules.networks)
        except AddressRefused as error:
            raise self._rules.refused(name, str(error)) from None
        except (OSError, TimeoutError, UnicodeError):
            raise self._rules.away(name) from None
        for address in addresses[:4]:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    server_name = name if tls is not None else None
                    return await asyncio.open_connection(
                        str(address), PORT, ssl=tls, server_hostname=server_name, limit=PIECE
                    )
            except (OSError, TimeoutError):
                continue
        raise self._rules.away(name)

    async def _pump_both(self, near: Streams, far: Streams) -> None:
        activity = _Activity()
        ways = [
            asyncio.create_task(self._pump(near[0], far[1], activity)),
            asyncio.create_task(self._pump(far[0], near[1], activity)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, activity: "_Activity"
    ) -> None:
        """Copy bytes until end of file. Raises OSError, TimeoutError."""
        while data := await activity.within(source.read(PIECE)):
            self._rules.spend(len(data))
            target.write(data)
            await activity.within(target.drain())
        if target.can_write_eof():
            target.write_eof()


class _Activity:
    """The idle timeout of a connection, over both directions."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()

    async def within(self, work: Coroutine[None, None, T]) -> T:
        """Await work. Raises TimeoutError once neither direction has moved for a while."""
        task = self._loop.create_task(work)
        try:
            while not task.done():
                left = self._moved_at + IDLE_SECONDS - self._loop.time()
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait({task}, timeout=left)
            self._moved_at = self._loop.time()
            return task.result()
        finally:
            task.cancel()


async def _say(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {_WORDS.get(status, 'OK')}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    )
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            await writer.drain()
    except (OSError, TimeoutError):
        pass
