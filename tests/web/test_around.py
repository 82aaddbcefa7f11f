"""What is around a program: examples, a draft, copies for elsewhere, the search, the operator's words, frames, the API's viewer."""

import html
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Page, Route, expect

from support.browser import Visit, violations
from support.service import Service
from support.web_page import run, status_is, unfold, write

Open = Callable[..., Visit]
CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}
OWN = "sandrun.example"  # a host that is not of this machine


@pytest.fixture
def framing() -> Iterator[Callable[[str], str]]:
    """The address of a page, of another site, that frames the one at an address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            framed = html.escape(unquote(self.path.partition("?")[2]))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(
                f'<link rel="icon" href="data:,"><iframe src="{framed}" width=900 height=400></iframe>'.encode()
            )

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield lambda url: f"http://site.localhost:{server.server_port}/?{quote(url, safe='')}"
        server.shutdown()
        thread.join()


def clipboard(page: Page) -> str:
    return str(page.evaluate("navigator.clipboard.readText()"))


def code_is(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.get_by_role("textbox", name="Code")).to_contain_text(text)


def test_every_example_runs(visit: Open) -> None:
    page = visit().page
    menu = page.get_by_label("Examples")
    # The one with matplotlib is offered where an environment with it is built, which depends on the machine.
    shown = [title for title in menu.get_by_role("option").all_inner_texts() if title != "Choose…"]
    titles = [title for title in shown if "matplotlib" not in title]
    assert len(titles) >= 5
    for title in titles:
        menu.select_option(title)
        status_is(page, re.compile("^The example is open"))
        page.keyboard.press("Control+Enter")
        status_is(page, re.compile("^Failed with exit code 1" if "error" in title else "^Finished"))
        expect(page.get_by_role("button", name="Run")).to_have_attribute("aria-disabled", "false")
        if "image" in title:
            expect(page.get_by_role("img", name="The image wave.svg")).to_be_visible()
        if "input" in title:
            expect(page.get_by_role("log")).to_have_text(re.compile("3 numbers, sum 49.5"))
    code = page.get_by_role("textbox", name="Code")
    last = code.inner_text()
    code.click()
    page.keyboard.press("Control+z")
    expect(code).not_to_have_text(last)  # an example before: the editor joins changes that follow quickly


def test_the_program_is_kept_until_it_is_cleared(visit: Open) -> None:
    opened = visit()
    page = opened.page
    note = page.locator("#draft")
    expect(note).to_be_hidden()
    write(page, "print('kept')")
    unfold(page, "input", "more")
    page.get_by_label("Arguments, as in a shell").fill("a b")
    page.get_by_label("Environment variables").fill("KEY=secret")
    expect(note).to_contain_text("Saved in this browser")
    assert violations(page) == []
    page.wait_for_function("() => localStorage['sandrun.draft']?.includes('a b')")
    stored = page.evaluate("JSON.stringify(localStorage)")
    assert "kept" in stored
    assert "secret" not in stored
    assert {method for method, _ in opened.requests} == {"GET"}  # nothing is sent
    again = opened.new_page()
    again.goto("/")
    again.locator("html[data-ready]").wait_for()
    code_is(again, "print('kept')")
    expect(again.get_by_label("Arguments, as in a shell")).to_have_value("a b")
    again.get_by_role("button", name="Clear").click()
    expect(again.locator("#draft")).to_be_hidden()
    assert again.evaluate("localStorage.length") == 0
    code_is(again, "print('kept')")  # nobody loses what they look at
    again.goto("about:blank")
    page.get_by_label("Environment variables").fill("")
    page.goto("about:blank")


def test_a_link_does_not_replace_what_is_kept(visit: Open) -> None:
    opened = visit(**CLIPBOARD)
    page = opened.page
    write(page, "print('from a link')")
    page.get_by_role("button", name="Copy link").click()
    status_is(page, re.compile("The link is copied"))
    link = clipboard(page)
    write(page, "print('my own')")
    page.wait_for_function("() => localStorage['sandrun.draft']?.includes('my own')")
    other = opened.new_page()
    other.goto(link)
    other.locator("html[data-ready]").wait_for()
    code_is(other, "from a link")
    write(other, "print('changed')")
    expect(other.locator("#draft")).to_contain_text("Changes are not saved here")
    assert "my own" in other.evaluate("localStorage['sandrun.draft']")
    asked: list[str] = []

    def dismissed(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    other.on("dialog", dismissed)
    other.evaluate("setTimeout(() => location.assign('/health'))")
    other.wait_for_event("dialog")
    code_is(other, "changed")  # the reader stayed
    assert asked == ["beforeunload"]
    other.get_by_role("button", name="Open it").click()
    code_is(other, "my own")


def test_copies_run_elsewhere(visit: Open, service: Service) -> None:
    page = visit(**CLIPBOARD).page
    menu = page.locator("#copy-menu summary")
    write(page, 'import sys\nprint("""it\'s \\"$HOME\\" `id`""", sys.argv[1:], sys.stdin.read())')
    unfold(page, "input")
    page.get_by_label("Arguments, as in a shell").fill("'a b'")
    page.get_by_label("Standard input").fill("typed")
    expected = "it's \"$HOME\" `id` ['a b'] typed\n"
    menu.click()
    assert violations(page) == []
    page.get_by_role("button", name="Copy as curl").click()
    status_is(page, "Copied as a curl command.")
    expect(page.get_by_role("button", name="Copy as curl")).to_be_hidden()
    done = subprocess.run(
        ["bash", "-c", clipboard(page)], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["stdout"] == expected
    menu.click()
    page.get_by_role("button", name="Copy as Python").click()
    status_is(page, "Copied as a Python program.")
    program = clipboard(page)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == expected
    menu.click()
    page.get_by_role("button", name="Copy as embedded frame").click()
    status_is(page, re.compile("^The frame is copied"))
    assert re.match(rf'<iframe src="http://127.0.0.1:{service.port}/embed#z=[\w-]+" ', clipboard(page))


def test_the_search_of_the_editor(visit: Open) -> None:
    page = visit().page
    write(page, "first = 1\nsecond = 2\nprint(first)")
    page.get_by_role("button", name="Find", exact=True).click()
    page.get_by_role("textbox", name="Find").press_sequentially("second")
    page.keyboard.press("Enter")
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.keyboard.type("other")
    code_is(page, "other = 2")


@pytest.mark.parametrize(
    "contact", ["abuse@site.example", "https://site.example/help", "javascript:alert(1)"]
)
def test_the_operators_words(visit: Open, contact: str) -> None:
    page = visit().page
    expect(page.get_by_role("note")).to_have_count(0)
    expect(page.get_by_role("link", name="API reference")).to_have_attribute("href", re.compile("/docs$"))

    def more(route: Route) -> None:
        if route.request.headers.get("accept") != "application/json":
            route.fallback()
            return
        told = {
            "notice": "Be <b>kind</b>.",
            "contact": contact,
            "documentation": "https://docs.site.example/",
        }
        route.fulfill(json={**route.fetch().json(), **told})

    page.route(re.compile(r"/$"), more)
    page.reload()
    expect(page.get_by_role("note", name="Notice of the operator")).to_have_text("Be <b>kind</b>.")
    links = page.get_by_role("navigation", name="Links")
    expect(links).to_contain_text(f"Contact: {contact}")
    expected = {"abuse@site.example": f"mailto:{contact}", "https://site.example/help": contact}.get(contact)
    found = links.locator("#contact a")
    expect(found).to_have_count(0 if expected is None else 1)
    if expected:
        expect(found).to_have_attribute("href", expected)
    expect(links.get_by_role("link", name="Documentation")).to_have_attribute(
        "href", re.compile("^https://docs")
    )
    assert violations(page) == []


def test_a_page_of_another_site_frames_the_program(
    visit: Open, service: Service, framing: Callable[[str], str]
) -> None:
    opened = visit(**CLIPBOARD)
    page = opened.page
    write(page, "print('framed')")
    page.get_by_role("button", name="Copy link").click()
    status_is(page, re.compile("The link is copied"))
    fragment = clipboard(page).partition("#")[2]
    outer = opened.new_page()
    outer.goto(framing(f"http://127.0.0.1:{service.port}/embed#{fragment}"))
    framed = outer.frame_locator("iframe")
    framed.locator("html[data-ready]").wait_for()
    expect(framed.get_by_role("textbox", name="Code")).to_contain_text("framed")
    for name in ("Settings", "Find"):
        expect(framed.get_by_role("button", name=name)).to_be_hidden()
    framed.get_by_role("button", name="Run").click()
    expect(framed.locator("#status")).to_have_text("Finished. 1 line of output.")
    expect(framed.get_by_role("log")).to_have_text("framed")
    framed.get_by_role("textbox", name="Code").click()
    outer.keyboard.type("# changed\n")
    inner = outer.frames[1]
    assert inner.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_embedded_page_is_small_and_keeps_nothing(visit: Open) -> None:
    opened = visit("/embed", viewport={"width": 360, "height": 480})
    page = opened.page
    run(page, "print(1)")
    status_is(page, "Finished. 1 line of output.")
    page.evaluate("dispatchEvent(new Event('pagehide'))")  # when the page itself saves what was changed
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert violations(page) == []


def test_nothing_else_can_be_framed(visit: Open, service: Service, framing: Callable[[str], str]) -> None:
    opened = visit()
    outer = opened.new_page()
    for path in ("/", "/docs"):
        with outer.expect_event("console", lambda message: "frame-ancestors" in message.text):
            outer.goto(framing(f"http://127.0.0.1:{service.port}{path}"))
    opened.complaints.clear()


def test_the_apis_viewer_loads_nothing_from_elsewhere(browser: Browser, service: Service) -> None:
    """Under another name than one of loopback, which Swagger UI would treat as one of a developer."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = Visit(context)
    foreign: list[str] = []

    def offline(route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.netloc != OWN:
            foreign.append(route.request.url)
            route.abort()
            return
        query = f"?{url.query}" if url.query else ""
        route.fulfill(response=route.fetch(url=f"http://127.0.0.1:{service.port}{url.path}{query}"))

    context.route("**/*", offline)
    page = opened.page
    page.goto(f"https://{OWN}/docs")
    page.locator("html[data-ready]").wait_for()
    page.locator("#operations-server-getServer, [id$=getServer]").first.wait_for()
    operations = page.locator(".opblock")
    assert operations.count() > 10
    page.locator("[id$=getHealth] button").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(
        page.locator(".responses-wrapper .live-responses-table .response-col_status").last
    ).to_contain_text("200")
    page.locator("[id$=submitJob] button, [id$=runCode] button").first.click()
    assert foreign == []
    assert opened.complaints == []
    context.close()
