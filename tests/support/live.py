"""The application behind a real server on a loopback port, inside the test's own event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import uvicorn

from sandrun_api.server import configure
from sandrun_shared.settings import Settings


@dataclass
class Live:
    """A running server and a client for it."""

    client: httpx.AsyncClient
    port: int


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Live]:
    """Serve with these settings until the context is left."""
    server = _Server(configure(settings))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        task = asyncio.create_task(server.serve([listener]))
        waiting = asyncio.create_task(server.ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield Live(client, port)
        finally:
            server.should_exit = True
            await task
