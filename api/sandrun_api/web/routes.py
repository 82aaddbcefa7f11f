"""Serving the web page: what it may do, who gets it, what a browser keeps of it."""

import re

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from sandrun_api.edge.origins import OPAQUE, Rules
from sandrun_api.errors import ApiError
from sandrun_api.web import files

router = APIRouter(include_in_schema=False)

# 'self' includes the WebSocket of the same host and port (CSP level 3, 6.7.2.8); no script is made from text.
_OWN = "default-src 'self'; base-uri 'none'; form-action 'none'; object-src 'none'"
_NO_TEXT_TO_SCRIPT = "require-trusted-types-for 'script'; trusted-types 'none'"
POLICY = f"{_OWN}; frame-ancestors 'none'; {_NO_TEXT_TO_SCRIPT}"
EMBED_POLICY = f"{_OWN}; frame-ancestors {{ancestors}}; {_NO_TEXT_TO_SCRIPT}"
# Swagger UI has its icons in data: addresses, and makes markup from Markdown, which it cleans.
DOCS_POLICY = f"{_OWN}; img-src 'self' data:; frame-ancestors 'none'"
_LOOPBACK = tuple(
    f"{scheme}://{name}:*"
    for scheme in ("http", "https")
    for name in ("localhost", "*.localhost", "127.0.0.1")
)
_QUALITY = re.compile(r";\s*q\s*=\s*(\d(?:\.\d{1,3})?)\s*(?:;|\Z)", re.IGNORECASE)


@router.api_route("/assets/{path:path}", methods=["GET", "HEAD"])
async def get_asset(request: Request, path: str) -> Response:
    """A file of the page."""
    file = files.assets().get(path)
    if file is None:
        raise ApiError(404, "There is nothing at this address.")
    return answer(request, file)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def get_docs(request: Request) -> Response:
    """The description of the interface, to read and to try."""
    headers = {"Content-Security-Policy": DOCS_POLICY, "Cross-Origin-Opener-Policy": "same-origin"}
    return answer(request, files.docs(), headers)


@router.api_route("/embed", methods=["GET", "HEAD"])
async def get_embedded(request: Request) -> Response:
    """The page as a part of other pages: of all that may use this server."""
    rules: Rules = request.app.state.rules
    headers = {"Content-Security-Policy": EMBED_POLICY.format(ancestors=" ".join(ancestors(rules)))}
    return answer(request, files.embedded(), headers)


def ancestors(rules: Rules) -> list[str]:
    """The sources that may frame a page (CSP level 3, 6.4.2.1): those whose scripts may use the server."""
    if rules.origins is None:
        return ["*"]
    return ["'self'", *_LOOPBACK, *sorted(rules.origins - {OPAQUE})]


def page(request: Request) -> Response:
    """The page itself."""
    headers = {"Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin"}
    return answer(request, files.page(), headers, vary="Accept, Accept-Encoding")


def answer(
    request: Request,
    file: files.WebFile,
    headers: dict[str, str] | None = None,
    *,
    vary: str = "Accept-Encoding",
) -> Response:
    """A file, or 304 for a browser that has it; it asks each time, so all parts are of one version."""
    compressed = quality(request.headers.get("accept-encoding", ""), "gzip") > 0
    etag = file.etag(compressed=compressed)
    given = {**(headers or {}), "ETag": etag, "Cache-Control": "no-cache", "Vary": vary}
    known = {item.strip().removeprefix("W/") for item in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        return Response(None, 304, given)
    if compressed:
        given["Content-Encoding"] = "gzip"
    return Response(file.compressed if compressed else file.plain, 200, given, file.media_type)


def wants_page(request: Request) -> bool:
    """Whether this is a browser: HTML is asked for by name, and not less than JSON."""
    accept = request.headers.get("accept", "")
    html = quality(accept, "text/html")
    return html > 0 and html >= quality(accept, "application/json")


def quality(header: str, name: str) -> float:
    """The weight of a name that a header lists (RFC 9110, 12.4.2); 0 for one that is not there."""
    for item in header.split(","):
        if item.partition(";")[0].strip().lower() == name:
            match = _QUALITY.search(item)
            return float(match[1]) if match else 1.0
    return 0.0
