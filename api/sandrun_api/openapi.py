"""The OpenAPI document: what FastAPI says of the routes, corrected where the server does otherwise."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from sandrun_api import errors
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.run_routes import RunRequest
from sandrun_api.jobs.schemas import answers
from sandrun_shared.settings import Settings

REFERENCE = "#/components/schemas/{model}"
# Bodies that the routes read themselves, so FastAPI does not know of them.
_BODIES = (Manifest, RunRequest)
# A bad parameter is a 400 here: FastAPI's own answer to it is never given.
_NEVER = ("HTTPValidationError", "ValidationError")
# Given before any route is chosen.
_EVERYWHERE = (403, 414, 421, 431)


def install(app: FastAPI) -> None:
    """Serve this document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document_of(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's way to replace it


def document_of(app: FastAPI) -> dict[str, Any]:
    """The document of an application, OpenAPI 3.1."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    for name in _NEVER:
        schemas.pop(name, None)
    _, bodies = models_json_schema([(model, "validation") for model in _BODIES], ref_template=REFERENCE)
    schemas.update(bodies["$defs"])
    settings: Settings = app.state.settings
    for model in _BODIES:
        fields = schemas[model.__name__]["properties"]
        for name, most in (
            ("timeout", settings.limits.max_timeout_seconds),
            ("memory_mb", settings.limits.max_memory_mb),
        ):
            fields[name]["anyOf"][0]["maximum"] = most
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    for methods in document["paths"].values():
        for operation in methods.values():
            _correct(operation)
    _link(document)
    return document


def _link(document: dict[str, Any]) -> None:
    """Say where the id that a submission answers with is of use."""
    operations = [item for methods in document["paths"].values() for item in methods.values()]
    links = {
        item["operationId"]: {
            "operationId": item["operationId"],
            "parameters": {"job_id": "$response.body#/job_id"},
        }
        for item in operations
        if [parameter["name"] for parameter in item.get("parameters", ()) if parameter["in"] == "path"]
        == ["job_id"]
    }
    document["paths"]["/submit"]["post"]["responses"]["200"]["links"] = links
    listed = {"job_id": "$request.path.job_id", "path": "$response.body#/files/0"}
    document["paths"]["/outputs/{job_id}"]["get"]["responses"]["200"]["links"] = {
        name: {"operationId": name, "parameters": listed} for name in ("downloadFile", "downloadFileAlias")
    }


def _correct(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    for status in _EVERYWHERE:
        responses[str(status)] = {
            "description": answers(None, status)[status]["description"],
            "content": {"application/json": {"schema": {"$ref": REFERENCE.format(model="ErrorBody")}}},
        }
    for status, answer in responses.items():
        # FastAPI adds JSON, whatever the route answers with.
        if answer.get("content", {}).get("application/json", {}).get("schema") == {}:
            del answer["content"]["application/json"]
        if status[0] in "45":
            answer["content"]["application/json"]["example"] = _example(int(status), answer["description"])
    operation["responses"] = dict(sorted(responses.items()))


def _example(status: int, meaning: str) -> dict[str, Any]:
    known = {
        400: "The manifest is not valid: field 'entrypoint' is required",
        404: errors.unknown_job().reason,
        409: "The job is running; it has no outputs before it is finished.",
        429: "CPU quota exhausted (10.2/10.0 seconds used)",
    }
    pause = {429: 45, 503: 5}.get(status)
    return errors.body_of(errors.ApiError(status, known.get(status, f"{meaning}."), retry_after=pause))
