"""The two ways in: standard input and output, and streamable HTTP."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import uvicorn
from mcp import stdio_server
from mcp.server import Server
from mcp.server.transport_security import TransportSecuritySettings

from sandrun_client.connecting import is_local
from sandrun_client.errors import SandrunError

PATH = "/mcp"
LARGEST_MESSAGE = 64 << 20  # bytes of one message on standard input
LARGEST_BODY = 16 << 20  # bytes of one over HTTP
MOST_SESSIONS = 100
MOST_CONNECTIONS = 400
READ_BYTES = 1 << 16
GRACE_SECONDS = 1  # for what is still being sent when the server ends


class Lines:
    """Lines of a descriptor, without a thread: one that waits for input would outlive Ctrl-C."""

    def __init__(self, fd: int, largest: int = LARGEST_MESSAGE) -> None:
        self._fd = fd
        self._largest = largest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces: list[bytes] = []
        held = 0
        while True:
            with contextlib.suppress(PermissionError):  # a file, which never makes anyone wait
                await anyio.wait_readable(self._fd)
            data = os.read(self._fd, READ_BYTES)
            *lines, rest = data.split(b"\n")
            for line in lines:
                yield b"".join([*pieces, line])
                pieces.clear()
                held = 0
            if not data:
                break
            pieces.append(rest)
            held += len(rest)
            if held > self._largest:
                raise SandrunError(f"A message has more than {self._largest >> 20} MiB.")
        if held:
            yield b"".join(pieces)


async def serve_stdio(server: Server[Any]) -> int:
    """Serve one client on standard input and output until the input ends.

    Raises SandrunError for a message that is too large, BrokenPipeError when nobody reads any more.
    """
    # Where descriptors cannot be waited for, the SDK reads in a thread.
    lines: Any = Lines(sys.stdin.fileno()) if os.name == "posix" else None
    try:
        async with stdio_server(stdin=lines) as (received, sent):
            await server.run(received, sent, server.create_initialization_options())
    except ExceptionGroup as group:
        raise _first(group) from group
    return 0


def _first(error: Exception) -> Exception:
    """What went wrong in one of several tasks."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


@dataclass(frozen=True)
class Address:
    """Where to listen, and by which names clients may call it."""

    host: str
    port: int
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str, names: Sequence[str]) -> "Address":
        """From HOST:PORT, :PORT or PORT; names are needed beyond loopback. Raises SandrunError."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
        if not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise SandrunError(f"{text!r} is no address like 127.0.0.1:8444.")
        if not names and not is_local(host):
            raise SandrunError(
                f"{host} can be reached from other machines, and every client there can run code on it. "
                "If that is meant, name what clients call it with --allow-host."
            )
        return cls(host, int(port), tuple(names))

    def security(self) -> TransportSecuritySettings:
        """Only the names it has: a page of the web that makes its own name point here is refused."""
        names = [*self.names, "127.0.0.1", "localhost", "[::1]"]
        hosts = [pattern for name in names for pattern in (name, f"{name}:*")]
        origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
        return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)

    def bound(self) -> socket.socket:
        """A socket of it. Raises SandrunError."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise SandrunError(f"{self.host}:{self.port} cannot be listened on: {error}") from error
        return listener


async def serve_http(
    server: Server[Any],
    address: Address,
    stop_calls: Callable[[], Awaitable[None]],
    ready: Callable[[str], None],
) -> int:
    """Serve clients at the address until cancelled; ready is told the URL. Raises SandrunError.

    stop_calls ends what is being served, so that it is answered before connections are closed.
    """
    with address.bound() as listener:
        app = server.streamable_http_app(
            streamable_http_path=PATH,
            transport_security=address.security(),
            max_request_body_size=LARGEST_BODY,
            max_sessions=MOST_SESSIONS,
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        listening = _Listening(config)
        serving = asyncio.ensure_future(listening.serve(sockets=[listener]))
        host, port = listener.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}")
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            await stop_calls()
            listening.should_exit = True
            await serving
            raise
    return 0


class _Listening(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's."""
        yield
