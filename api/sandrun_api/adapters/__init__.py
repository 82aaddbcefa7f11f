"""Interfaces of other services, so that their clients run code here without a change.

They translate only: a request becomes the manifest and the upload of an ordinary job, which has the same
admission, quotas and limits as one of `/run`.
"""

from fastapi import FastAPI

from sandrun_api.adapters import piston
from sandrun_api.adapters.judge0 import routes as judge0
from sandrun_shared.settings import Settings


def install(app: FastAPI, settings: Settings) -> None:
    """Serve the adapters that the settings switch on; they are not in the OpenAPI document."""
    if "piston" in settings.api.adapters:
        for prefix in piston.PREFIXES:
            app.include_router(piston.router, prefix=prefix, include_in_schema=False)
    if "judge0" in settings.api.adapters:
        app.state.submissions = judge0.Submissions()
        app.include_router(judge0.router, include_in_schema=False)
