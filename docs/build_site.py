"""Build the documentation as a site: .venv/bin/python docs/build_site.py [FOLDER].

The pages are those of the repository; the doors of docs/index.md are the tabs. A link that leads nowhere and
a page that would load something from another host end it with status 1. To read it: python -m http.server.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from written import DOCS, ROOT

DEFAULT = ROOT / "site"
# Where pages outside of docs/, and those with another name there, are on the site.
PLACES = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "docs/examples/README.md": "examples/index.md",
}
AS_THEY_ARE = {".json", ".png", ".svg"}
DOOR = re.compile(r"^## (.+)$", re.MULTILINE)
ENTRY = re.compile(r"^ *- \[([^]]+)\]\(([^)#]+\.md)\)", re.MULTILINE)
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
COLOUR = re.compile("\x1b\\[[0-9;]*m")
LOADING = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "object": "data"}
# A browser keeps to it even where the theme's scripts know of other hosts (diagrams, numbers of stars).
POLICY = "default-src 'self' 'unsafe-inline' data: blob:"
TEMPLATE = f"""\
{{% extends "base.html" %}}
{{% block extrahead %}}<meta http-equiv="Content-Security-Policy" content="{POLICY}">{{% endblock %}}
"""
SETTINGS = """\
[project]
site_name = "Sandrun"
site_description = "Run untrusted code over HTTP; nothing is kept"
docs_dir = "docs"
site_dir = "site"
use_directory_urls = false
copyright = "MIT licence"
nav = {nav}

[project.theme]
language = "en"
font = false
custom_dir = "overrides"
features = ["navigation.tabs", "navigation.top", "search.highlight", "toc.follow"]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"

[project.extra]
generator = false
"""


class SiteError(Exception):
    """The site cannot be built from these pages."""


def doors() -> dict[str, list[tuple[str, str]]]:
    """The pages behind each door of docs/index.md: title and path in the repository."""
    parts = DOOR.split((DOCS / "index.md").read_text())[1:]
    return {
        name: [(title, _in_repository(DOCS / path)) for title, path in ENTRY.findall(text)]
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def _in_repository(path: Path) -> str:
    return path.resolve().relative_to(ROOT).as_posix()


def _place(path: str) -> str:
    """Where a file of the repository is on the site, as a source."""
    if path.endswith(".md"):
        return PLACES.get(path, path.removeprefix("docs/"))
    if Path(path).suffix in AS_THEY_ARE and path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path}.txt"  # a browser shows it


def stage(folder: Path) -> None:
    """Put all that the site is made of into a folder. Raises SiteError."""
    pages = ["README.md", "CHANGELOG.md", "SECURITY.md"]
    pages += sorted(_in_repository(page) for page in DOCS.rglob("*.md"))
    linked: set[str] = set()
    for page in pages:
        target = folder / "docs" / _place(page)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_relinked(page, linked.add))
    for path in sorted(linked - set(pages)):
        target = folder / "docs" / _place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
    overrides = folder / "overrides"
    overrides.mkdir()
    (overrides / "main.html").write_text(TEMPLATE)
    nav: list[object] = [{"Home": "index.md"}, {"In two minutes": "readme.md"}]
    nav += [{door: [{title: _place(path)} for title, path in entries]} for door, entries in doors().items()]
    (folder / "zensical.toml").write_text(SETTINGS.format(nav=_inline(nav)))


def _relinked(page: str, seen: Callable[[str], None]) -> str:
    """The text of a page with its links as they are on the site; code is left alone. Raises SiteError."""

    def link(match: re.Match[str]) -> str:
        opening, target, rest = match.groups()
        path = (ROOT / page).parent / unquote(target)
        if not path.is_file() or not path.resolve().is_relative_to(ROOT):
            raise SiteError(f"{page}: no file {target}")
        name = _in_repository(path)
        seen(name)
        up = "../" * _place(page).count("/")
        return f"{opening}{up}{_place(name)}{rest}"

    parts = FENCE.split((ROOT / page).read_text())
    return "".join(part if number % 2 else LINK.sub(link, part) for number, part in enumerate(parts))


def _inline(value: object) -> str:
    """A value of nav as TOML, which writes tables in one line with = for :."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_inline(own)}" for key, own in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


class _Page(HTMLParser):
    """What a page has, refers to, and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As the base class's."""
        values = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := values.get(name))}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")
        if values.get(LOADING.get(tag, "")):
            self.loads.append(values[LOADING[tag]] or "")


def problems(site: Path) -> list[str]:
    """Links of a finished site that lead nowhere, and what its pages would load from elsewhere."""
    pages = {path: _Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        for url in [*page.links, *page.loads]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if url in page.loads and parts.scheme != "data":
                    found.append(f"{where} loads {url}")
                continue
            root = site if url.startswith("/") else path.parent
            target = (root / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{where}: nothing is at {url}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                found.append(f"{where}: no such place as {url}")
    return found


def build(output: Path) -> None:
    """Replace a folder by the site. Raises SiteError, which says what is wrong with the pages."""
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        command = [sys.executable, "-P", "-m", "zensical", "build", "--strict"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
        if done.returncode:
            said = COLOUR.sub("", done.stdout + done.stderr.partition("Traceback")[0])
            raise SiteError(f"zensical: {said[-8000:]}")
        made = Path(folder) / "site"
        wrong = problems(made)
        if wrong:
            raise SiteError("\n".join(wrong))
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(made, output)


def main() -> int:
    """Build, and say where."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    try:
        build(output)
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"python -m http.server -d {output}    # http://localhost:8000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
