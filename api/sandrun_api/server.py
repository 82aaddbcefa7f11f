"""Serves the application: one process, no access log, nothing said about itself."""

import logging

import uvicorn

from sandrun_api.app import create_app
from sandrun_shared.settings import Settings

GRACE_SECONDS = 5  # for answers under way when the server is told to stop


def configure(settings: Settings) -> uvicorn.Config:
    """How the server runs."""
    # The parser's messages quote the body that it could not read.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)
    return uvicorn.Config(
        create_app(settings),
        host=settings.api.host,
        port=settings.api.port,
        ws="websockets-sansio",
        ws_max_size=64 << 10,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    uvicorn.Server(configure(settings)).run()
