"""What programs print, on the page: much of it, cut, copied, read as text, cleared, with a hint."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from support.browser import Visit, violations
from support.service import Service
from support.web_page import run, status_is

Open = Callable[..., Visit]
LOG_MB = 10
LINE = "{:6d} " + "x" * 92
LINES = 100_000  # of 100 bytes: less than LOG_MB
MANY = f"import sys\nsys.stdout.write(''.join({LINE!r}.format(i) + '\\n' for i in range({LINES})))"
TOO_MANY = (
    f"import sys\nsys.stdout.write(''.join({LINE!r}.format(i) + '\\n' for i in range({LINES + 20_000})))"
)
SHORT_LINES = 320_000
SHORT = f"import sys\nsys.stdout.write(''.join(f'{{i}}\\n' for i in range({SHORT_LINES})))"
# Counts how often the page has time for something else.
WATCH = """
() => {
  window.answers = 0;
  const answer = () => { window.answers += 1; setTimeout(answer, 0); };
  answer();
}
"""


@pytest.fixture(scope="module")
def service(_root: None) -> Iterator[Service]:
    """One without quotas, which keeps 10 MB of output."""
    environment = {"SANDRUN_API__TRUSTED_PROXIES": "127.0.0.1", "SANDRUN_LIMITS__LOG_MB": str(LOG_MB)}
    with Service(environment=environment) as running:
        yield running


def whole_text(page: Page) -> str:
    """What the page has as plain text."""
    page.get_by_label("Plain text").check()
    return str(page.locator("#output-text").evaluate("element => element.textContent"))


def test_all_of_much_output_is_there(visit: Open) -> None:
    page = visit().page
    page.evaluate(WATCH)
    run(page, MANY)
    expect(page.get_by_role("log")).to_contain_text("xxx")  # while it runs, or just after
    answers = page.evaluate("answers")
    status_is(page, f"Finished. {LINES} lines of output.")
    assert page.evaluate("answers") > answers  # it was never busy for the whole time
    expect(page.locator("#cut")).to_be_hidden()
    expect(page.locator("#dropped")).to_be_hidden()
    page.locator("#output").focus()
    page.keyboard.press("Home")
    expect(page.locator("#output .xterm-rows")).to_contain_text("     0 xxx")
    page.keyboard.press("End")
    expect(page.locator("#output .xterm-rows")).to_contain_text(f" {LINES - 1} xxx")
    assert whole_text(page).splitlines() == [LINE.format(number) for number in range(LINES)]
    page.get_by_label("Plain text").uncheck()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save output").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == LINES


def test_what_the_server_did_not_keep_is_told(visit: Open) -> None:
    page = visit().page
    run(page, TOO_MANY)
    status_is(page, re.compile("^Finished"))
    told = "1.4 MB of the output are missing: the server keeps the first 10 MB of what a program prints."
    expect(page.locator("#cut")).to_have_text(told)
    expect(page.get_by_role("alert").filter(has_text=told)).to_be_visible()
    assert violations(page) == []
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the first 10 MB").click()
    assert Path(download.value.path()).stat().st_size == LOG_MB << 20
    run(page, "print('short')")
    status_is(page, "Finished. 1 line of output.")
    expect(page.locator("#cut")).to_be_hidden()
    expect(page.get_by_role("button", name="Save output")).to_be_visible()


def test_what_the_page_does_not_show_is_told(visit: Open) -> None:
    page = visit().page
    run(page, SHORT)
    status_is(page, f"Finished. {SHORT_LINES} lines of output.")
    dropped = page.locator("#dropped")
    expect(dropped).to_contain_text(re.compile(r"^\d+ earlier lines not shown here"))
    shown = whole_text(page).splitlines()
    assert shown == [str(number) for number in range(SHORT_LINES - len(shown), SHORT_LINES)]
    assert int(dropped.inner_text().split()[0]) == SHORT_LINES - len(shown)


def test_output_is_selected_and_copied(visit: Open) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"]).page
    long = "word " * 60
    run(page, f"print('one')\nprint({long!r})\nprint('\\x1b[31mthree\\x1b[0m')")
    status_is(page, "Finished. 3 lines of output.")
    expected = f"one\n{long.rstrip()}\nthree"
    page.locator("#output").click()
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+c")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert [line.rstrip() for line in copied.strip().split("\n")] == expected.split("\n")
    page.evaluate("navigator.clipboard.writeText('')")
    page.get_by_role("button", name="Copy output").click()
    status_is(page, "The output is copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert [line.rstrip() for line in copied.strip().split("\n")] == expected.split("\n")
    box = page.locator("#output .xterm-rows > div").first.bounding_box()
    assert box is not None
    page.mouse.dblclick(box["x"] + 5, box["y"] + 5)
    page.keyboard.press("Control+c")
    assert page.evaluate("navigator.clipboard.readText()") == "one"


def test_no_sequence_hides_output_or_reaches_out(visit: Open) -> None:
    """Screens, resets, modes, links and questions to the terminal: what was printed stays, nothing is answered or opened."""
    opened = visit()
    page = opened.page
    pieces = [
        *(
            "a\\n\\x1b[?1049h",
            "b\\n\\x1b[?1049l",
            "c\\n\\x1bc",
            "d\\n\\x1b[2J\\x1b[H",
            "e\\n\\x1b[3J",
            "f\\n\\x1b[!p",
            "g\\n",
        ),
        *("\\x1b[?1000h\\x1b[?2004h\\x1b[c\\x1b[6n\\x1b]52;c;aGk=\\x07\\x1b]0;title\\x07h\\n",),
        "\\x1b]8;;https://site.example/\\x1b\\\\link\\x1b]8;;\\x1b\\\\\\n",
    ]
    run(page, f"import sys\nsys.stdout.write('{''.join(pieces)}')")
    status_is(page, re.compile("^Finished"))
    expect(page.get_by_role("log")).to_contain_text("link")
    lines = [line for line in whole_text(page).splitlines() if line]
    assert lines == ["a", "b", "c", "d", "e", "f", "g", "h", "link"]
    page.get_by_label("Plain text").uncheck()
    title = page.title()
    box = page.locator("#output .xterm-rows").get_by_text("link").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 5, box["y"] + 5)
    assert (page.title(), len(opened.context.pages)) == (title, 1)
    assert [url for _, url in opened.requests if "site.example" in url] == []


def test_plain_text_is_accessible(visit: Open) -> None:
    page = visit().page
    run(page, "for number in range(300): print('line', number)")
    status_is(page, "Finished. 300 lines of output.")
    log = page.get_by_role("log", name="Output")
    expect(log).to_contain_text("line 299")  # of the terminal, screen readers find the last lines there
    expect(log).not_to_contain_text("line 99\n")
    assert violations(page) == []
    page.get_by_label("Plain text").check()
    expect(log).to_contain_text("line 0")
    expect(page.locator("#output")).to_be_hidden()
    assert violations(page) == []
    log.focus()
    expect(log).to_be_focused()


@pytest.mark.parametrize("packages", [["numpy==2.2.0", "scikit_learn==1.6"], []])
def test_a_missing_module_has_a_hint(visit: Open, packages: list[str]) -> None:
    page = visit().page

    def more(route: Route) -> None:
        body = route.fetch().json()
        if packages:
            extra = {"name": "ml-test", "description": "For a test.", "packages": packages}
            body["details"].append({**body["details"][0], **extra})
        route.fulfill(json=body)

    page.route("**/environments", more)
    page.reload()
    page.locator("html[data-ready]").wait_for()
    run(page, "import sklearn.svm")
    status_is(page, re.compile("^Failed with exit code 1"))
    hint = page.get_by_role("note")
    if not packages:
        expect(hint).to_contain_text("No environment of this server has the module")
        return
    expect(hint).to_contain_text(re.compile('The module "sklearn.*" is in the environment ml-test.'))
    assert violations(page) == []
    hint.get_by_role("button", name="Use ml-test").click()
    picker = page.get_by_role("combobox", name="Environment", exact=True)
    expect(picker).to_have_value("ml-test")
    expect(picker.get_by_role("option", selected=True)).to_have_text("ml-test: scikit-learn, numpy")
    expect(page.locator("#environment-summary")).to_have_text("ml-test: 2 packages")
    expect(hint).to_be_hidden()
