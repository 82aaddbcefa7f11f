"""Actions of a user on the web page."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from support.browser import PATIENCE_MS

expect.set_options(timeout=PATIENCE_MS)


def write(page: Page, code: str) -> None:
    """Replace the editor's content by the code."""
    page.get_by_role("textbox", name="Code").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(code)


def run(page: Page, code: str) -> None:
    """Write code and press Ctrl-Enter."""
    write(page, code)
    page.keyboard.press("Control+Enter")


def unfold(page: Page, *sections: str) -> None:
    """Open or close sections of options: input, file, limit, more."""
    for section in sections:
        page.locator(f"#{section}-options summary").click()


def status_is(page: Page, text: str | re.Pattern[str]) -> None:
    """Wait until the page shows a text."""
    # By its id: roles are looked for in every line of the output.
    expect(page.locator("#status")).to_have_text(text)


def job_of(page: Page, act: Callable[[], object]) -> str:
    """Act, and return the id of the job that this submits."""
    with page.expect_response("**/submit") as submitted:
        act()
    return str(submitted.value.json()["job_id"])
