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
def assets() -> Mapping[str, WebFile]:
    """What the page loads, by its path below `assets/`. Raises OSError."""
    paths = (path for path in ASSETS.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(ASSETS).as_posix(): _read(path) for path in sorted(paths)}


def _read(path: Path) -> WebFile:
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:32]
    return WebFile(TYPES[path.suffix], data, gzip.compress(data, 9, mtime=0), digest)
