"""The page on another host than its server, with the policy that docs/web-page.md gives."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import expect

from sandrun_api.web import files
from support import page_programs as programs
from support.browser import Visit
from support.service import Service

PAGE = (Path(__file__).parents[2] / "docs" / "web-page.md").read_text()
POLICY = re.search(r'add_header Content-Security-Policy "([^"]+)" always;', PAGE)


@pytest.fixture
def elsewhere(service: Service) -> Iterator[str]:
    """The address of a server that has only the page, made for the service."""
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


def test_the_page_works_on_another_host(
    visit: Callable[..., Visit], elsewhere: str, service: Service
) -> None:
    opened = visit(elsewhere)
    page = opened.page
    page.get_by_role("textbox", name="Code").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(programs.LEAVES_FILES)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status")).to_have_text("Finished. 2 lines of output. 2 files left.")
    expect(page.get_by_role("row")).to_have_count(4)
    picture = page.get_by_role("img", name="The image results/wave.png")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.naturalWidth === 420", arg=picture.element_handle())
    asked = {
        url.split("/")[2]
        for method, url in opened.requests
        if "/assets/" not in url and not url.endswith("/run/")
    }
    assert asked == {f"127.0.0.1:{service.port}"}


def test_a_server_that_the_policy_does_not_name(visit: Callable[..., Visit], service: Service) -> None:
    opened = visit()
    page = opened.page
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Server").fill("run.example.org")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("An address begins with https:// or http://.")
    page.get_by_label("Server").fill("http://127.0.0.1:9")
    with page.expect_navigation():
        page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#notice")).to_contain_text("The server at http://127.0.0.1:9/ cannot be reached.")
    assert all(service.client.base_url.host in url and ":9/" not in url for _, url in opened.requests)
    blocked = [text for text in opened.complaints if "Content Security Policy" in text]
    assert len(blocked) == len(opened.complaints) > 0
    opened.complaints.clear()
