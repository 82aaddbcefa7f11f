"""What all adapters need: a body of JSON, errors in another shape, what the worker offers."""

import base64
import binascii
import re
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from sandrun_api.edge.clients import client_of
from sandrun_api.edge.reject import Rejection
from sandrun_api.errors import ApiError, bad_request, count, printable, respond
from sandrun_api.jobs.views import service_of
from sandrun_api.uploads import documents
from sandrun_shared.jobs import Outcome, Verdict
from sandrun_shared.protocol import Description

MIB = 1 << 20
_PARTS = 3  # of a semantic version


def run_cpu_seconds(outcome: Outcome) -> float:
    """CPU time of a job without the compiler's, unless nothing else ran."""
    compiling = 0.0 if outcome.verdict is Verdict.compile_error else outcome.compile_cpu_seconds
    return max(0.0, outcome.cpu_seconds - compiling)


def renderer(shape: Callable[[str], Any]) -> Callable[[ApiError], Response]:
    """What makes the answer of an error: the headers are ours, the body is shape(reason)."""

    def render(error: ApiError) -> Response:
        headers = {
            name: value for name, value in respond(error).headers.items() if not name.startswith("content-")
        }
        body = msgspec.json.encode(shape(printable(error.reason)))
        return Response(body, error.status, headers, "application/json")

    return render


def route_class(render: Callable[[ApiError], Response]) -> type[APIRoute]:
    """The class of routes whose errors render() answers."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def answered(request: Request) -> Response:
                try:
                    return await handler(request)
                except ApiError as error:
                    count(request.scope, error)
                    return render(error)

            return answered

    return Route


def accept_final_slashes(router: APIRouter) -> None:
    """Answer every address of the router with a slash at its end too, as the servers imitated here do."""
    for route in list(router.routes):
        if isinstance(route, APIRoute):
            router.add_api_route(route.path + "/", route.endpoint, methods=sorted(route.methods or ()))


def rejection_of(request: Request, render: Callable[[ApiError], Response]) -> Response | None:
    """The answer to a body that need not be read, of another type or of a client that may send none now."""
    try:
        _check_json(request)
        service_of(request).admit(client_of(request))
    except ApiError as error:
        return Rejection(error, render)
    return None


def _check_json(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "requests must be of type application/json")


def json_object(body: bytes) -> dict[str, Any]:
    """The body, which must be one object. Raises ApiError (400, 413)."""
    documents.check_values(body)
    body = documents.without_bom(body)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise bad_request("the body is not valid JSON") from None
    documents.load(body, "body")  # of two members with one name, msgspec would take one
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object")
    return value


def from_base64(text: str) -> bytes | None:
    """The bytes, None for what is no Base64; white space and missing padding are forgiven."""
    bare = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def offered(worker: Description) -> dict[str, str]:
    """The interpreters of the default environment with their versions, as x.y.z."""
    default = next((item for item in worker.environments if item.name == "default"), None)
    allowed = set(default.interpreters) if default is not None else set()
    return {
        item.name: _padded(item.version)
        for item in worker.interpreters
        if item.version and (not allowed or item.name in allowed)
    }


def _padded(version: str) -> str:
    numbers = re.findall(r"\d+", version)[:_PARTS]
    return ".".join([*numbers, "0", "0", "0"][:_PARTS])
