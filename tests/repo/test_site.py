"""The documentation site builds, has no broken links, and loads nothing from other hosts."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support import browser as browsers
from support.docs import program

site = program("build_site")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("site") / "built"
    site.build(folder)
    return folder


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=built)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_page_is_on_the_site(built: Path) -> None:
    behind = [path for entries in site.doors().values() for _, path in entries]
    names = [
        site._place(path).removesuffix("md") + "html" for path in ("docs/index.md", "README.md", *behind)
    ]
    assert [name for name in names if not (built / name).is_file()] == []
    assert site.problems(built) == []


def test_every_page_keeps_a_browser_from_other_hosts(built: Path) -> None:
    without = [
        str(path.relative_to(built))
        for path in built.rglob("*.html")
        if f'http-equiv="Content-Security-Policy" content="{site.POLICY}"' not in path.read_text()
    ]
    assert without == []


WRONG = {
    '<a href="nowhere.html">': "nothing is at nowhere.html",
    '<a href="#nowhere">': "no such place as #nowhere",
    '<a href="other.html#nowhere">': "no such place as other.html#nowhere",
    '<script src="https://example.org/a.js"></script>': "loads https://example.org/a.js",
    '<link rel="stylesheet" href="//example.org/a.css">': "loads //example.org/a.css",
    '<img src="missing.png">': "nothing is at missing.png",
}


@pytest.mark.parametrize("html", WRONG)
def test_what_is_wrong_with_a_page_is_found(tmp_path: Path, html: str) -> None:
    (tmp_path / "other.html").write_text('<p id="here">')
    (tmp_path / "index.html").write_text('<a href="other.html#here"><a href="https://example.org">')
    assert site.problems(tmp_path) == []
    (tmp_path / "index.html").write_text(html)
    assert site.problems(tmp_path) == [f"index.html{':' if 'loads' not in WRONG[html] else ''} {WRONG[html]}"]


def test_a_broken_link_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of few pages."""
    docs = tmp_path / "docs"
    docs.mkdir()
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site, "DOCS", docs)
    for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "docs/protocol.md"):
        (tmp_path / name).write_text("# A page\n\n## Place\n\n[Here](#place).\n")
    (docs / "index.md").write_text("# Index\n\n## Door\n\n- [Protocol](protocol.md): words\n")
    site.build(tmp_path / "output")
    assert (tmp_path / "output" / "protocol.html").is_file()
    (docs / "protocol.md").write_text("# A page\n\n[Here](no-such-page.md).\n")
    with pytest.raises(site.SiteError, match=r"^docs/protocol.md: no file no-such-page.md$"):
        site.build(tmp_path / "output")
    (docs / "protocol.md").write_text("# A page\n\n[Here](#no-such-place).\n")
    with pytest.raises(site.SiteError, match=r"zensical: (.|\n)*#no-such-place"):
        site.build(tmp_path / "output")


def test_a_browser_reads_and_searches_it_without_another_host(address: str) -> None:
    with browsers.browser() as browser, browser.new_context(base_url=f"http://{address}") as context:
        visit = browsers.Visit(context)
        visit.page.goto("/index.html")
        visit.page.get_by_role("link", name="Receipts and sealed results").first.click()
        visit.page.get_by_role("heading", name="What a receipt says").wait_for()
        visit.page.get_by_role("button", name="Search").click()
        visit.page.locator("input:focus").wait_for()
        visit.page.keyboard.type("ptrace")
        visit.page.locator('a[href*="/sandbox.html?h=ptrace"]').first.click()
        visit.page.get_by_role("heading", name="The sandbox").wait_for()
        assert visit.complaints == []
        assert {url.split("/")[2] for _, url in visit.requests} == {address}
        # And where a page tries to, the browser does not let it.
        refused = "fetch('http://example.invalid/').then(() => false, () => true)"
        assert visit.page.evaluate(refused)
        assert any("Content Security Policy" in complaint for complaint in visit.complaints)
