"""The application: its parts put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from sandrun_api import adapters, admin_socket, errors, metrics, openapi, system
from sandrun_api.admin_socket import Admin
from sandrun_api.admission.floods import Floods
from sandrun_api.admission.quotas import Clock, clock
from sandrun_api.edge.access import Access, AccessCheck
from sandrun_api.edge.clients import Clients
from sandrun_api.edge.garbage import Collector
from sandrun_api.edge.middleware import Guard, Head
from sandrun_api.edge.origins import Cors, OriginCheck, Rules
from sandrun_api.jobs import log_routes, output_routes, routes, run_routes
from sandrun_api.jobs.service import JobService
from sandrun_api.web import files as web_files
from sandrun_api.web import routes as web
from sandrun_shared.executor_client import ExecutorClient
from sandrun_shared.settings import Settings, networks

_EXPOSED = (
    "Location",
    "Retry-After",
    "RateLimit-Policy",
    "RateLimit",
    "ETag",
    "Repr-Digest",
    "Content-Range",
    "Content-Disposition",
    "Sandrun-Exit-Code",
    "Sandrun-Verdict",
    "Sandrun-Job-Id",
    "Sandrun-Receipt",
    "Sandrun-Truncated",
)


def create_app(
    settings: Settings,
    executor: ExecutorClient | None = None,
    now: Clock = clock,
    *,
    exempt_loopback: bool = False,
    admin: Path | None = None,
) -> FastAPI:
    """The application for these settings; `executor` replaces the client of the configured socket.

    With exempt_loopback this machine's own requests have no quotas. admin is the operator's socket.

    Raises SettingsError.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with Collector():
            async with asyncio.TaskGroup() as tasks:
                client = executor or ExecutorClient(settings.executor.socket)
                service = JobService(settings, client, tasks, now)
                app.state.service = service
                app.state.metrics.watch(service, client)
                try:
                    async with admin_socket.serving(Admin(service, app.state.access), admin):
                        yield
                finally:
                    service.stop()
            service.threads.close()
            service.store.close()

    app = FastAPI(
        title="Sandrun",
        version=metrics.installed_version(),
        description=system.DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's viewers are loaded from other hosts; web.routes has one that is not
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.clients = Clients.of(settings, exempt_loopback=exempt_loopback)
    app.state.metrics = metrics.Metrics()
    app.state.rules = Rules.of(settings.api)
    app.state.access = Access(settings, app.state.clients)
    floods = Floods(now)

    def client_refused(client: str, cause: str) -> None:
        app.state.metrics.refused(cause)
        if cause != "denied":  # the operator knows
            floods.refused(client, cause)

    app.state.client_refused = client_refused
    app.state.refused = lambda connection, cause: client_refused(app.state.clients.key(connection), cause)
    networks(settings.api.metrics_networks, metrics.SETTING)  # wrong ones are told at the start
    web_files.read_all()  # now: a request must not wait for a disk
    errors.install(app)
    for part in (system, web, metrics, routes, run_routes, log_routes, output_routes):
        app.include_router(part.router)
    adapters.install(app, settings)
    openapi.install(app)
    # No cookies and no accounts: any page that the rules let in may ask, there is nothing to ride on.
    app.add_middleware(
        Cors,
        allow_origins=["*"],
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=list(_EXPOSED),
    )
    app.add_middleware(OriginCheck, rules=app.state.rules)
    app.add_middleware(AccessCheck, access=app.state.access)
    app.add_middleware(
        Guard,
        answered=app.state.metrics.answered,
        secure=bool(settings.api.cert),
        head_bytes=settings.api.head_bytes,
    )
    app.add_middleware(Head)  # outermost: everything else sees a GET
    return app
