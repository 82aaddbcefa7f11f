"""The files of the web page, read once: their bytes, plain and compressed, and what HTTP says of them."""

import functools
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
ASSETS = FOLDER / "assets"
# Not the mimetypes module's: that one asks the machine, and a wrong type is a page that does not work.
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

LEVEL = 6  # the start is quicker than with 9, for half a percent more bytes
_ROOT = b'<html lang="en">'
_EMBEDDED_ROOT = b'<html lang="en" data-embed="yes">'


@dataclass(frozen=True)
class WebFile:
    """One file in both codings; the strong validators (RFC 9110, 8.8.3) differ, as their bytes do."""

    media_type: str
    plain: bytes
    compressed: bytes
    digest: str

    def etag(self, *, compressed: bool) -> str:
        """The validator of one of the two."""
        return f'"{self.digest}{"-gzip" if compressed else ""}"'


@functools.cache
def page() -> WebFile:
    """The page itself. Raises OSError."""
    return _read(FOLDER / "index.html")


@functools.cache
def embedded() -> WebFile:
    """The page as a part of another one: the same, but for a mark. Raises OSError, ValueError."""
    data = page().plain
    marked = data.replace(_ROOT, _EMBEDDED_ROOT, 1)
    if marked == data:
        raise ValueError("the page does not begin as expected")
    return _of(".html", marked)


@functools.cache
def docs() -> WebFile:
    """The viewer of the interface's description. Raises OSError."""
    return _read(FOLDER / "docs.html")


@functools.cache
def assets() -> Mapping[str, WebFile]:
    """What the page loads, by its path below `assets/`. Raises OSError."""
    paths = (path for path in ASSETS.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(ASSETS).as_posix(): _read(path) for path in sorted(paths)}


def read_all() -> None:
    """Read and compress every file. Raises OSError, ValueError."""
    for read in (page, embedded, docs, assets):
        read()


def _read(path: Path) -> WebFile:
    return _of(path.suffix, path.read_bytes())


def _of(suffix: str, data: bytes) -> WebFile:
    digest = hashlib.sha256(data).hexdigest()[:32]
    return WebFile(TYPES[suffix], data, gzip.compress(data, LEVEL, mtime=0), digest)
