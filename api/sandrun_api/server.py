"""Serves the application: one process, no access log, nothing said about itself."""

import asyncio
import contextlib
import functools
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from sandrun_api import admin_socket
from sandrun_api.admission.quotas import Clock, clock
from sandrun_api.app import create_app
from sandrun_api.edge.clients import address_of
from sandrun_api.edge.listener import BACKLOG, ConnectionLimiter, Listener, listen
from sandrun_api.edge.protocols import HttpProtocol, WebSocketProtocol
from sandrun_api.jobs.drain import drain
from sandrun_shared import descriptors, tls
from sandrun_shared.notify import is_service, notify, watchdog_seconds
from sandrun_shared.settings import Api, Settings, SettingsError, networks
from sandrun_shared.tls import is_personal

BEAT_SECONDS = 10.0  # between two signs of life, unless the service manager wants them more often
FIRST_REQUEST_SECONDS = 0.5  # for a client that connected just before the end
GRACE_SECONDS = 5  # for answers under way when the server is told to stop
TLS_END_SECONDS = 5.0  # for the peer's close_notify
_POLL_SECONDS = 0.02
MESSAGE_BYTES = 4096  # nothing that a WebSocket's client says is read


def configure(settings: Settings, now: Clock = clock, *, exempt_loopback: bool = False) -> uvicorn.Config:
    """How the server runs; quotas go by the clock. Raises SettingsError for what must not be exposed."""
    if exempt_loopback:
        check_personal(settings.api, os.environ)
    admin = admin_socket.path_of(os.environ)
    tls.check(settings.api)
    context = tls.tls_context(settings.api)
    http: Any = functools.partial(HttpProtocol, limits=settings.api)
    ws: Any = functools.partial(WebSocketProtocol, limits=settings.api)
    return uvicorn.Config(
        create_app(settings, now=now, exempt_loopback=exempt_loopback, admin=admin),
        host=settings.api.host,
        port=settings.api.port,
        http=http,
        ws=ws,
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,  # a few hundred KiB and a delay for every reader
        h11_max_incomplete_event_size=settings.api.head_bytes,
        timeout_keep_alive=settings.api.idle_seconds,  # type: ignore[arg-type]  # call_later takes a float
        ssl_context_factory=None if context is None else lambda *_: context,
        lifespan="on",
        log_level="error",  # a warning is a client's mistake, and there would be as many as it likes
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


class Server(uvicorn.Server):
    """uvicorn's server behind our own connection limiter. Raises SettingsError."""

    def __init__(self, settings: Settings, now: Clock = clock, *, exempt_loopback: bool = False) -> None:
        super().__init__(configure(settings, now, exempt_loopback=exempt_loopback))
        self._settings = settings
        self._asked_to_drain = False
        self._draining: asyncio.Task[None] | None = None
        self.config.callback_notify = self._beat
        self.config.timeout_notify = int(watchdog_seconds() or BEAT_SECONDS)
        proxies = networks(settings.api.trusted_proxies, "api.trusted_proxies")

        def is_proxy(host: str) -> bool:
            address = address_of(host)
            return address is not None and any(address in network for network in proxies)

        app: Any = self.config.app
        self.limiter = ConnectionLimiter(
            settings.api, exempt=is_proxy, tls=bool(settings.api.cert), refused=app.state.client_refused
        )

    def listen(self) -> list[Listener]:
        """The sockets of the settings' address. Raises OSError."""
        return listen(self._settings.api.host, self._settings.api.port, self.limiter)

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Serve on these sockets; as uvicorn's, but a TLS handshake has a time limit."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        limits: dict[str, Any] = {}
        if self.config.ssl is not None:
            seconds = self._settings.api.tls_handshake_seconds
            limits = {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": TLS_END_SECONDS}
        protocol: Any = self.config.http_protocol_class
        connect = functools.partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(connect, sock=sock, ssl=self.config.ssl, backlog=BACKLOG, **limits)
            for sock in (self.listen() if sockets is None else sockets)
        ]
        loop.add_signal_handler(signal.SIGHUP, self._renew)
        self.started = True
        notify("READY=1")

    def _renew(self) -> None:
        if self.config.ssl is None:
            return
        try:
            tls.renew(self.config.ssl, self._settings.api)
        except SettingsError as error:
            print(f"sandrun: the old certificate stays: {error}", file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first SIGTERM lets the jobs end; a second one, or SIGINT, stops at once."""
        if sig == signal.SIGTERM and self.started and not self._asked_to_drain:
            self._asked_to_drain = True
            self._captured_signals.append(sig)
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Look after what signals asked for."""
        if self._asked_to_drain and self._draining is None:
            service = self.config.app.state.service  # type: ignore[union-attr]  # ours, not a name
            self._draining = asyncio.create_task(drain(service, self._settings.api.drain_seconds))
            notify("STOPPING=1")
            await self._beat()
        if self._draining is not None and self._draining.done():
            self._draining.result()
            self.should_exit = True
        return await super().on_tick(counter)

    async def _first_requests(self) -> None:
        """Let who was just accepted ask; uvicorn would hang up on them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_REQUEST_SECONDS):
                while self._has_newcomers():  # noqa: ASYNC110 (uvicorn tells nobody)
                    await asyncio.sleep(_POLL_SECONDS)

    def _has_newcomers(self) -> bool:
        return any(getattr(item, "cycle", item) is None for item in self.server_state.connections)

    async def _beat(self) -> None:
        notify("WATCHDOG=1")
        if self._draining is not None:
            # TimeoutStopSec counts from the last of these (sd_notify(3)).
            notify(f"EXTEND_TIMEOUT_USEC={int(4e6 * self.config.timeout_notify)}")

    async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Stop as uvicorn does."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        if self._draining is not None:
            self._draining.cancel()
        for server in self.servers:
            server.close()
        await self._first_requests()
        app: Any = self.config.app
        app.state.service.stop()  # answers that wait for a job end with it, not by force
        await super().shutdown(None if sockets is None else list(sockets))
        self.limiter.close()


def check_personal(api: Api, environ: Mapping[str, str]) -> None:
    """Raises SettingsError where requests of this machine may be those of others: they then have quotas."""
    if is_service(environ):
        raise SettingsError("a service exempts nobody from quotas; [quota] exempt_networks names who is")
    if not is_personal(api):
        raise SettingsError(
            "requests of this machine are exempt from quotas only while the server listens on loopback, and"
            " without a proxy; [quota] exempt_networks names who else is"
        )


def serve(settings: Settings, *, exempt_loopback: bool = False) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError for settings that cannot be served."""
    descriptors.allow_many()
    server = Server(settings, exempt_loopback=exempt_loopback)
    try:
        sockets = server.listen()
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.api.host}, port {settings.api.port}: {error.strerror}"
        ) from None
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn ends with the signal that stopped it
        server.run(sockets=list(sockets))
