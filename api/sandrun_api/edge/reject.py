"""Reject a request without reading its body."""

from collections.abc import Callable

from starlette.responses import Response

from sandrun_api.errors import ApiError, respond


class Rejection(Response):
    """The answer of a rejected request; the connection is closed after it, in order (`protocols`)."""

    def __init__(self, error: ApiError, render: Callable[[ApiError], Response] = respond) -> None:
        answer = render(error)
        super().__init__(
            answer.body, error.status, {**error_headers(answer), "Connection": "close"}, "application/json"
        )


def error_headers(answer: Response) -> dict[str, str]:
    """The header fields of an answer that are not about its body."""
    return {
        name: value
        for name, value in answer.headers.items()
        if name not in ("content-length", "content-type")
    }
