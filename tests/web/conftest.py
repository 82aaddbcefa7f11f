"""The web page in a real browser, in front of the real service."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from sandrun_api.web import files
from support import browser as browsers
from support.fixtures import _root
from support.service import Service

__all__ = ["_root"]

JOBS_PER_HOUR = 12
PAGE = (Path(__file__).parents[2] / "docs" / "web-page.md").read_text()
POLICY = re.search(r'add_header Content-Security-Policy "([^"]+)" always;', PAGE)


@pytest.fixture(scope="module")
def service(_root: None) -> Iterator[Service]:
    """One with quotas, behind a proxy; every test comes from a different address."""
    quota = {
        "CPU_SECONDS_PER_MINUTE": 10,
        "JOBS_PER_HOUR": JOBS_PER_HOUR,
        "CONCURRENT_JOBS": 1,
        "QUEUED_JOBS": 2,
    }
    environment = {f"SANDRUN_QUOTA__{key}": str(value) for key, value in quota.items()}
    with Service(environment={**environment, "SANDRUN_API__TRUSTED_PROXIES": "127.0.0.1"}) as running:
        yield running


@pytest.fixture(scope="module")
def browser(_root: None) -> Iterator[Browser]:
    """The browser that all tests share."""
    with browsers.browser() as launched:
        yield launched


@pytest.fixture
def address(request: pytest.FixtureRequest, counter: Iterator[int]) -> str:
    """The client that the test is."""
    return f"198.51.100.{next(counter)}"


@pytest.fixture(scope="module")
def counter() -> Iterator[int]:
    """Numbers that no test had before."""
    return iter(range(1, 255))


@pytest.fixture
def visit(browser: Browser, service: Service, address: str) -> Iterator[Callable[..., browsers.Visit]]:
    """Opens the page; options are those of a browser context. Nothing it complains of goes unseen."""
    visits = []

    def opened(path: str = "/", **options: Any) -> browsers.Visit:
        context = browser.new_context(
            base_url=f"http://127.0.0.1:{service.port}",
            extra_http_headers={"X-Forwarded-For": address},
            **{"viewport": {"width": 1280, "height": 860}, **options},
        )
        made = browsers.Visit(context)
        visits.append(made)
        made.page.goto(path)
        made.page.locator("html[data-ready]").wait_for()
        return made

    yield opened
    for made in visits:
        made.context.close()
    assert [complaint for made in visits for complaint in made.complaints] == []


@pytest.fixture
def elsewhere(service: Service) -> Iterator[str]:
    """The address of a server that has only the page, for the service, with the policy that docs/web-page.md gives."""
    assert POLICY is not None
    host = f"127.0.0.1:{service.port}"
    policy = (
        POLICY[1]
        .replace("https://run.example.org", f"http://{host}")
        .replace("wss://run.example.org", f"ws://{host}")
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = files.assets().get(self.path.removeprefix("/run/assets/"))
            body = file.plain if file else files.page().plain
            self.send_response(200 if file or self.path == "/run/" else 404)
            self.send_header("Content-Type", file.media_type if file else files.page().media_type)
            self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            server = f'name="sandrun-server" content="http://{host}"'.encode()
            self.wfile.write(body.replace(b'name="sandrun-server" content=""', server))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/run/"
        server.shutdown()
        thread.join()
