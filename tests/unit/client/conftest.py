"""Both clients before a server that is a function, and no waiting."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest

from sandrun_client import AsyncSandrunClient, SandrunClient, drivers, http_httpx

Handler = Callable[[httpx.Request], httpx.Response]


class Either:
    """One of the clients, called as if it were the synchronous one; iterators are read to lists."""

    def __init__(self, kind: str, handler: Handler, **options: Any) -> None:
        self._kind = kind
        self._transport = httpx.MockTransport(handler)
        self._options = options

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = self._sync if self._kind == "sync" else self._async
        return lambda *args, **options: call(name, *args, **options)

    def _sync(self, name: str, /, *args: Any, **options: Any) -> Any:
        with SandrunClient("http://server.test", transport=self._transport, **self._options) as client:
            found = getattr(client, name)(*args, **options)
            return list(found) if isinstance(found, Iterator) else found

    def _async(self, name: str, /, *args: Any, **options: Any) -> Any:
        async def main() -> Any:
            async with AsyncSandrunClient(
                "http://server.test", transport=self._transport, **self._options
            ) as client:
                found = getattr(client, name)(*args, **options)
                return [item async for item in found] if isinstance(found, AsyncIterator) else await found

        return anyio.run(main)


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Either]:
    """Makes one of the clients for a handler."""
    return lambda handler, **options: Either(request.param, handler, **options)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a client wanted to wait; it does not."""
    wanted: list[float] = []

    async def nap(seconds: float) -> None:
        wanted.append(seconds)

    monkeypatch.setattr(drivers.time, "sleep", wanted.append)
    monkeypatch.setattr(http_httpx.anyio, "sleep", nap)
    return wanted
