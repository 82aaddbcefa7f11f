"""Debian's Chromium, driven by Playwright; every error of a page fails its test."""

import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Response, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PATIENCE_MS = 20_000  # a limit of waiting, never a measure of speed
_axe = Axe()


def executable() -> str:
    """The browser: SANDRUN_BROWSER, or the first that is installed; skips or fails the test without one."""
    asked = os.environ.get("SANDRUN_BROWSER")
    found = asked or next(filter(None, map(shutil.which, NAMES)), None)
    if found and found != "skip":
        return found
    if asked != "skip" and os.environ.get("SANDRUN_SYSTEM_MUST_WORK") == "1":
        pytest.fail("there is no Chromium: install it, name one in SANDRUN_BROWSER, or set that to 'skip'")
    pytest.skip("there is no Chromium")


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser; Playwright's own is never downloaded."""
    with sync_playwright() as playwright:
        # Its own sandbox does not work as root; every page here is ours.
        launched = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        try:
            yield launched
        finally:
            launched.close()


class Visit:
    """One page in a new context, with all errors that it reported."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.complaints: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.refused: list[int] = []  # statuses of answers that were errors
        self.page = self.new_page()

    def new_page(self) -> Page:
        """Another page of the same context."""
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append((request.method, request.url)))
        page.on("response", self._response)
        return page

    def _console(self, kind: str, text: str) -> None:
        # Chromium says this of every answer from 400 on; `refused` has them.
        if kind in ("error", "warning") and "Failed to load resource: the server responded" not in text:
            self.complaints.append(f"{kind}: {text}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.refused.append(response.status)


def violations(page: Page) -> list[str]:
    """Run axe-core; returns the violated rules with their elements."""
    found = _axe.run(page).response["violations"]
    return [f"{item['id']}: {[node['html'][:200] for node in item['nodes']]}" for item in found]


def screenshot(page: Page, name: str) -> None:
    """Save a picture of the page in the folder SANDRUN_SCREENSHOTS, if it is set."""
    if folder := os.environ.get("SANDRUN_SCREENSHOTS"):
        # To hide the caret Playwright would add a style, which the page's policy forbids.
        Path(folder, name).write_bytes(smaller(page.screenshot(caret="initial")))


def smaller(png: bytes) -> bytes:
    """The same picture, compressed better: its first and last chunk, and all its data in one."""
    kinds: list[tuple[bytes, bytes]] = []
    at = len(SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        kinds.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + size]))
        at += size + 12
    data = zlib.decompress(b"".join(body for kind, body in kinds if kind == b"IDAT"))
    head = next(body for kind, body in kinds if kind == b"IHDR")
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return SIGNATURE + b"".join(packed)
