"""The one shape of every error, and the handlers that make it.

The body has the published members (error, reason, retry_after) and those of RFC 9457.
"""

import http
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope


class FieldError(msgspec.Struct, frozen=True):
    """One fault in a document: a JSON pointer (RFC 6901) and what is wrong there."""

    pointer: str
    detail: str


TITLES = {
    400: "Invalid request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    413: "Too large",
    414: "Address too long",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    421: "Misdirected request",
    422: "Invalid request",
    429: "Rate limit exceeded",
    431: "Headers too long",
    500: "Internal error",
    501: "Not implemented",
    503: "Service unavailable",
    505: "HTTP version not supported",
}


class ApiError(Exception):
    """A request that cannot be served; reason is a sentence for the client, retry_after whole seconds.

    cause is a word for the metrics, of a refusal that has to do with who asks or with how busy the server is.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        error: str | None = None,
        retry_after: int | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        cause: str = "",
    ) -> None:
        super().__init__(status)  # never the reason: it may quote the client
        self.status = status
        self.reason = reason
        self.error = error or TITLES.get(status, "Error")
        self.retry_after = retry_after
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.cause = cause


def bare(error: ApiError) -> ApiError:
    """The error without the frames that raised it: they hold the body of the request that was refused."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def bad_request(reason: str, pointer: str | None = None) -> ApiError:
    """A 400 with its reason and, for a fault in a document, where it is."""
    errors = () if pointer is None else (FieldError(pointer, reason),)
    return ApiError(400, reason, errors=errors)


def unknown_job() -> ApiError:
    """The 404 of a job that was deleted or never existed: nobody can tell which."""
    return ApiError(404, "There is no such job: it was deleted, it expired, or it never existed.")


def body_of(error: ApiError) -> dict[str, Any]:
    """The error as the client reads it."""
    reason = printable(error.reason)
    body: dict[str, Any] = {
        "error": error.error,
        "reason": reason,
        "type": "about:blank",
        "title": _phrase(error.status),
        "status": error.status,
        "detail": reason,
    }
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    if error.errors:
        body["errors"] = [
            {"pointer": printable(fault.pointer), "detail": printable(fault.detail)} for fault in error.errors
        ]
    return body


def printable(text: str) -> str:
    """Text that JSON can hold: lone surrogates, from names that are not UTF-8, become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def count(scope: Scope, error: ApiError) -> None:
    """Tell the application of a refusal, which counts it by its cause."""
    if error.cause and (app := scope.get("app")) is not None:
        app.state.refused(HTTPConnection(scope), error.cause)


def respond(error: ApiError) -> Response:
    """The HTTP answer of an error."""
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(msgspec.json.encode(body_of(error)), error.status, headers, "application/json")


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


async def _api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        return respond(internal_error())
    count(request.scope, error)
    return respond(error)


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return respond(internal_error())
    reasons = {
        404: "There is nothing at this address.",
        405: "This address does not answer to this method.",
    }
    reason = reasons.get(error.status_code) or error.detail or _phrase(error.status_code)
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"  # which is answered wherever GET is
    return respond(ApiError(error.status_code, reason, headers=headers))


async def _validation_error(_: Request, error: Exception) -> Response:
    faults = []
    if isinstance(error, RequestValidationError):
        for item in error.errors():
            place = ".".join(str(part) for part in item["loc"])
            pointer = "/" + "/".join(str(part) for part in item["loc"])
            faults.append(FieldError(pointer, f"{place}: {item['msg']}"))
    reason = faults[0].detail if faults else "A parameter is not valid."
    return respond(ApiError(400, reason, errors=faults))


def internal_error() -> ApiError:
    """The 500 that says nothing of the inside."""
    return ApiError(500, "Something went wrong inside Sandrun; the request was not served.")


def install(app: FastAPI) -> None:
    """Make every error of the application take this shape."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
