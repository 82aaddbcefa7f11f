"""The web page over HTTP: who gets it, with which headers, and what a browser need not load again."""

import gzip
import re
from html.parser import HTMLParser

import httpx
import pytest

from sandrun_api.edge.middleware import may_be_framed
from sandrun_api.web import files
from sandrun_api.web.routes import POLICY
from sandrun_shared.settings import Api, Executor, Quota, Settings
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
INLINE = re.compile(r"\son\w+=|\sstyle=|javascript:", re.IGNORECASE)


class Links(HTMLParser):
    """What a page loads, and what is written into it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._tag = tag
        address = values.get("src") or (values.get("href") if tag == "link" else None)
        if address:
            self.found.append(address)

    def handle_data(self, data: str) -> None:
        if self._tag in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("*/*", False),
        (None, False),
        ("application/json", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0", False),
        ("text/*", False),
    ],
)
async def test_browsers_get_the_page(live_fake: Live, accept: str | None, is_page: bool) -> None:
    request = live_fake.client.build_request("GET", "/")
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    answer = await live_fake.client.send(request)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html" if is_page else "application/json")
    assert "Accept" in answer.headers["vary"].split(", ")
    assert (answer.headers["content-security-policy"] == POLICY) == is_page


async def test_headers_of_the_page(live_fake: Live) -> None:
    answer = await live_fake.client.get("/", headers={"Accept": BROWSER})
    headers = answer.headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "no-cache"
    assert headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("path", ["/docs", "/embed"])
async def test_headers_of_the_other_pages(live_fake: Live, path: str) -> None:
    headers = (await live_fake.client.get(path)).headers
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"


def frames_of(answer: httpx.Response) -> str:
    found = re.findall(r"frame-ancestors ([^;]*)", answer.headers["content-security-policy"])
    assert len(found) == 1
    return str(found[0])


LOCAL = (
    "'self' http://localhost:* http://*.localhost:* http://127.0.0.1:*"
    " https://localhost:* https://*.localhost:* https://127.0.0.1:*"
)


@pytest.mark.parametrize(
    ("api", "ancestors"),
    [
        ({"trusted_proxies": "127.0.0.1"}, "*"),
        ({"allowed_origins": "*"}, "*"),
        ({}, LOCAL),
        ({"allowed_origins": "null, https://site.example"}, f"{LOCAL} https://site.example"),
    ],
)
async def test_only_the_embedded_page_may_be_framed(
    fake: FakeExecutor, api: dict[str, str], ancestors: str
) -> None:
    """Pages of others frame it where their scripts may use the server, too; nothing else is ever framed."""
    settings = Settings(executor=Executor(socket=str(fake.path)), quota=Quota(0, 0, 0, 0), api=Api(**api))
    async with serving(settings) as live:
        embedded = await live.client.get("/embed")
        assert embedded.status_code == 200
        assert frames_of(embedded) == ancestors
        assert "x-frame-options" not in embedded.headers
        for path in ("/", "/docs", "/assets/main.js", "/openapi.json", "/nothing", "/embed/", "/health"):
            answer = await live.client.get(path, headers={"Accept": BROWSER})
            assert frames_of(answer) == "'none'", path
            assert answer.headers["x-frame-options"] == "DENY", path


@pytest.mark.parametrize(
    ("policy", "is_framed"),
    [
        (b"default-src 'self'; frame-ancestors *", True),
        (b"Frame-Ancestors https://site.example;", True),
        (b"frame-ancestors 'none'; sandbox", False),
        (b"default-src 'self'", False),
        (b"frame-ancestors-x *", False),
        (b"", False),
    ],
)
def test_which_policies_allow_frames(policy: bytes, is_framed: bool) -> None:
    assert may_be_framed(policy) == is_framed


def test_the_embedded_page_is_the_page_with_a_mark() -> None:
    page, embedded = files.page().plain.decode(), files.embedded().plain.decode()
    assert embedded.replace(' data-embed="yes"', "", 1) == page != embedded
    assert files.embedded().digest != files.page().digest


async def test_other_viewers_are_not_there(live_fake: Live) -> None:
    """FastAPI's own pages would load programs from hosts of others."""
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert (await live_fake.client.get(path)).status_code == 404


async def test_everything_the_page_loads_is_there(live_fake: Live) -> None:
    found: list[str] = []
    for page in (files.page(), files.embedded(), files.docs()):
        text = page.plain.decode()
        links = Links(text)
        assert links.inline == []
        assert not INLINE.search(text)
        found += links.found
    modules = {path for path in files.assets() if path.endswith(".js") and not path.startswith("vendor/")}
    imported = {
        f"assets/{name}"
        for path in modules
        for name in re.findall(r'from "\./([^"]+)"', files.assets()[path].plain.decode())
    }
    assert {f"assets/{path}" for path in modules} <= {*imported, *found}  # none is left over
    for address in {*found, *imported}:
        assert not address.startswith(("/", "http"))  # the page works below any path
        answer = await live_fake.client.get("/" + address)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == files.TYPES["." + address.rsplit(".", 1)[1]]


async def test_what_is_known_is_not_sent_again(live_fake: Live) -> None:
    first = await live_fake.client.get("/assets/main.js")
    assert first.headers["content-encoding"] == "gzip"
    plain = await live_fake.client.get("/assets/main.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == first.content == files.assets()["main.js"].plain
    assert plain.headers["etag"] != first.headers["etag"]
    for etag in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        again = await live_fake.client.get("/assets/main.js", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    other = await live_fake.client.get("/assets/main.js", headers={"If-None-Match": '"x"'})
    assert other.status_code == 200
    head = await live_fake.client.head("/assets/main.js")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(files.assets()["main.js"].compressed))


@pytest.mark.parametrize(
    "path", ["", "nothing.js", "../index.html", "%2e%2e/index.html", "vendor", "..%2f..%2frun.py"]
)
async def test_nothing_else_is_served(live_fake: Live, path: str) -> None:
    url = f"http://127.0.0.1:{live_fake.port}/assets/{path}"
    answer = await live_fake.client.get(httpx.URL(url))
    assert answer.status_code == 404
    assert answer.json()["error"] == "Not found"


def test_compressed_is_the_same() -> None:
    for file in (files.page(), files.embedded(), files.docs(), *files.assets().values()):
        assert gzip.decompress(file.compressed) == file.plain


@pytest.mark.parametrize(
    ("bundle", "packages", "licence"),
    [
        (
            "codemirror",
            {"@codemirror/view", "@codemirror/search", "style-mod"},
            "Permission is hereby granted",
        ),
        ("xterm", {"@xterm/xterm", "@xterm/addon-fit"}, "Permission is hereby granted"),
        ("swagger-ui", {"swagger-ui-dist"}, "Apache License"),
    ],
)
def test_bundles_are_here_with_their_licences(bundle: str, packages: set[str], licence: str) -> None:
    licences = files.assets()[f"vendor/{bundle}-licences.txt"].plain.decode()
    assert packages <= set(re.findall(r"^(\S+) \d+\.", licences, re.MULTILINE))
    assert licence in licences
