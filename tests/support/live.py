"""The application behind a real server on a loopback port, inside the test's own event loop."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import msgspec

from sandrun_api.admission.quotas import Clock, clock
from sandrun_api.server import Server
from sandrun_shared.settings import Settings


@dataclass
class Live:
    """A running server and a client for it."""

    client: httpx.AsyncClient
    port: int
    server: Server


class _Server(Server):
    def __init__(self, settings: Settings, now: Clock, *, exempt_loopback: bool) -> None:
        super().__init__(settings, now, exempt_loopback=exempt_loopback)
        self.ready = asyncio.Event()

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serving(
    settings: Settings,
    verify: ssl.SSLContext | bool = True,
    now: Clock = clock,
    *,
    exempt_loopback: bool = False,
) -> AsyncIterator[Live]:
    """Serve with these settings until the context is left."""
    settings = msgspec.structs.replace(settings, api=msgspec.structs.replace(settings.api, port=0))
    server = _Server(settings, now, exempt_loopback=exempt_loopback)
    sockets: list[socket.socket] = [*server.listen()]
    port = sockets[0].getsockname()[1]
    task = asyncio.create_task(server.serve(sockets))
    waiting = asyncio.create_task(server.ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    scheme = "https" if settings.api.cert else "http"
    try:
        async with httpx.AsyncClient(
            base_url=f"{scheme}://127.0.0.1:{port}", timeout=30, verify=verify, trust_env=False
        ) as client:
            yield Live(client, port, server)
    finally:
        server.should_exit = True
        await task
