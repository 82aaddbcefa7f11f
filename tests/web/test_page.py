"""Somebody uses the page: types, runs, looks, shares, cancels, with a mouse, a keyboard, a phone."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import WebSocketRoute, expect

from support import page_programs as programs
from support.browser import Visit, screenshot, violations
from support.service import Service
from support.web_page import job_of, run, status_is, unfold, write

JOBS_PER_HOUR = 12  # as conftest.py has it
Open = Callable[..., Visit]


def test_type_and_run(visit: Open) -> None:
    page = visit().page
    run(page, programs.COLOURS)
    status_is(page, "Finished. 3 lines of output.")
    output = page.get_by_role("log", name="Output")
    # Two pipes: only within each is the order certain.
    assert sorted(output.inner_text().splitlines()) == ["done", "green plain orange", "to stderr"]
    screen = page.locator("#output .xterm-rows")
    expect(screen.locator(".xterm-fg-2.xterm-bold")).to_have_text("green")
    orange = screen.get_by_text("orange", exact=True)  # made darker, so that it can be read
    expect(orange).to_have_css("color", re.compile(r"^rgb\(1\d\d, \d\d, \d\)$"))
    expect(screen.locator(".xterm-fg-3.xterm-italic")).to_have_text("to stderr")
    page.get_by_label("Show").select_option("stderr")
    expect(output).to_have_text("to stderr")
    expect(screen).not_to_contain_text("done")
    page.get_by_label("Show").select_option("both")
    expect(output).to_contain_text("done")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save output").click()
    assert "to stderr\n" in Path(download.value.path()).read_text()
    expect(page.locator("#quota-text")).to_have_text(
        re.compile(rf"of 10 s this minute · 1 run of {JOBS_PER_HOUR} this hour")
    )


def test_every_language_begins_with_a_program_that_runs(visit: Open) -> None:
    page = visit().page
    unfold(page, "input")
    page.get_by_label("Arguments, as in a shell").fill("'Ann Lee' Bo")
    picker = page.get_by_label("Language")
    offered = [str(option.get_attribute("value")) for option in picker.get_by_role("option").all()]
    assert {"python3", "node", "bash", "sh", "perl"} <= set(offered)
    assert "executable" not in offered
    for language in [name for name in offered if name not in ("go", "rust")]:  # they compile for long
        picker.select_option(language)
        expect(page.get_by_label("File", exact=True)).to_have_value(re.compile(r"^main\.\w+$"))
        page.get_by_role("button", name="Run").click()
        status_is(page, "Finished. 3 lines of output.")
        lines = [line.strip() for line in page.get_by_role("log").inner_text().splitlines()]
        assert re.match("Hello from ", lines[0])
        assert lines[1:] == ["Hello, Ann Lee", "Hello, Bo"]


def test_images_tables_and_downloads(visit: Open, service: Service) -> None:
    opened = visit(viewport={"width": 1280, "height": 940})
    page = opened.page
    write(page, programs.LEAVES_FILES)
    job = job_of(page, lambda: page.get_by_role("button", name="Run").click())
    status_is(page, "Finished. 2 lines of output. 2 output files.")
    picture = page.get_by_role("img", name="The image results/wave.png")
    picture.scroll_into_view_if_needed()
    page.wait_for_function(
        "image => image.complete && image.naturalWidth === 420", arg=picture.element_handle()
    )
    rows = page.get_by_role("group", name="Contents of results/cities.csv").get_by_role("row")
    assert rows.all_inner_texts() == [
        "city\tpeople\tnote",
        "Bern\t134000\tcapital",
        'Zürich, city\t421000\tsays "hoi"',
        "Genève\t203000\t",
    ]
    with page.expect_download() as download:
        page.get_by_role("link", name="results/wave.png").click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    page.get_by_role("textbox", name="Code").press("Control+Home")
    page.evaluate("scrollTo(0, 0)")
    screenshot(page, "web-page.png")
    with page.expect_download() as everything:
        page.get_by_role("link", name="Download all").click()
    assert Path(everything.value.path()).read_bytes().startswith(b"\x1f\x8b")
    assert service.client.get(f"/status/{job}").status_code == 404
    assert opened.refused == []
    expect(page.locator("#results-note")).to_contain_text("2 files, 1.7 KB, kept until ")


def test_verdicts_in_words(visit: Open) -> None:
    page = visit().page
    unfold(page, "limit")
    endings: list[tuple[str, str, str, str | re.Pattern[str]]] = [
        (programs.LOOPS, "1", "", "Time limit reached: 1 s. No output."),
        (programs.FILLS, "", "64", "Memory limit reached: 64 MB. No output."),
        ("import sys; sys.exit(3)", "", "", "Failed with exit code 3. No output."),
        ("import os; os.abort()", "", "", re.compile(r"Killed by signal 6 \(SIGABRT, .*")),
    ]
    for code, seconds, memory, words in endings:
        page.get_by_label("Time limit (seconds)", exact=True).fill(seconds)
        page.get_by_label("Memory limit (MB)").fill(memory)
        run(page, code)
        status_is(page, words)


def test_a_limit_that_is_too_high_is_not_sent(visit: Open) -> None:
    opened = visit()
    unfold(opened.page, "limit")
    opened.page.get_by_label("Memory limit (MB)").fill("999999")
    opened.page.keyboard.press("Control+Enter")
    expect(opened.page.get_by_role("alert")).to_contain_text(
        "The memory limit must be between 16 and 2048 MB, in whole numbers."
    )
    assert "POST" not in {method for method, _ in opened.requests}


def test_packages_where_the_server_installs_none(visit: Open) -> None:
    page = visit().page
    unfold(page, "more")
    field = page.get_by_label("Packages to install")
    field.fill("six")
    field.press("Control+Enter")
    status_is(page, "Not run.")
    expect(field).to_have_accessible_description(re.compile("This server installs no packages"))
    page.get_by_label("Language").select_option("node")
    expect(field).to_have_accessible_description(re.compile("a complete package.json"))


def test_queue_and_cancel(visit: Open, service: Service, address: str) -> None:
    opened = visit()
    page = opened.page
    code = {"files": ("main.py", programs.WAITS.encode())}
    manifest = {"manifest": json.dumps({"entrypoint": "main.py"})}
    first = service.client.post(
        "/submit", files=code, data=manifest, headers={"X-Forwarded-For": address}
    ).json()
    job = job_of(page, lambda: run(page, programs.WAITS))
    status_is(page, "Waiting: position 1 in the queue.")
    service.client.delete(f"/jobs/{first['job_id']}")
    expect(page.get_by_role("log")).to_have_text("up")
    status_is(page, "Running…")
    page.get_by_role("button", name="Cancel").click()
    status_is(page, "Cancelled. The job and its files are deleted.")
    assert service.client.get(f"/status/{job}").status_code == 404
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    assert set(opened.refused) <= {404}  # of the queue's watcher, should it ask at that moment


def test_too_many_runs(visit: Open, service: Service, address: str) -> None:
    for _ in range(JOBS_PER_HOUR):
        answer = service.client.post(
            "/run", content="1", headers={"Content-Type": "text/plain", "X-Forwarded-For": address}
        )
        assert answer.status_code == 200
    opened = visit()
    opened.page.get_by_role("button", name="Run").click()
    status_is(opened.page, "Not run: your quota is used up.")
    alert = opened.page.get_by_role("alert")
    expect(alert).to_contain_text("Rate limit exceeded")
    expect(alert).to_contain_text(re.compile(r"You can run again at .*\d\d:\d\d.* \(in (1 h|59 min)\)\."))
    assert opened.refused == [429]
    assert violations(opened.page) == []


def test_dropped_files_and_folders(visit: Open, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "data" / "deep").mkdir(parents=True)
    (project / ".git").mkdir()
    (project / ".git" / "HEAD").write_text("ref")
    (project / "tool.py").write_text(programs.READS_FILES)
    (project / "data" / "deep" / "ä b.txt").write_text("12345")
    (tmp_path / "single.bin").write_bytes(bytes(3))
    opened = visit()
    page = opened.page
    devtools = opened.context.new_cdp_session(page)
    data = {"items": [], "files": [str(project), str(tmp_path / "single.bin")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
    status_is(page, "3 files added, 3 files in all.")
    page.get_by_role("button", name="Edit and run project/tool.py").click()
    expect(page.get_by_label("File", exact=True)).to_have_value("project/tool.py")
    unfold(page, "input")
    page.get_by_label("Arguments, as in a shell").fill("--name 'two words'")
    page.get_by_label("Standard input").fill("typed")
    page.keyboard.press("Control+Enter")
    status_is(page, re.compile("Finished"))
    lines = page.get_by_role("log").inner_text().splitlines()
    assert sorted(lines) == [
        "['--name', 'two words'] 'typed'",
        "project/data/deep/ä b.txt 5",
        f"project/tool.py {len(programs.READS_FILES)}",
        "single.bin 3",
    ]
    page.get_by_role("button", name="Remove single.bin").click()
    expect(page.get_by_role("list", name="Files to upload").get_by_role("listitem")).to_have_count(1)


def test_chosen_files_and_folders(visit: Open, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    page = visit().page
    unfold(page, "file")
    for button, path in (("Add files", tmp_path / "in" / "a.txt"), ("Add a folder", tmp_path / "in")):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name=button).click()
        chooser.value.set_files(path)
    status_is(page, "1 file added, 2 files in all.")
    run(page, programs.READS_FILES)
    expect(page.get_by_role("log")).to_contain_text("in/a.txt 1")


def test_a_link_carries_the_program(visit: Open) -> None:
    opened = visit(permissions=["clipboard-read", "clipboard-write"])
    page = opened.page
    page.get_by_label("Language").select_option("node")
    write(page, "console.log('geteilt ✓', process.argv[2])")
    unfold(page, "input")
    page.get_by_label("Arguments, as in a shell").fill("x")
    page.get_by_role("button", name="Copy link").click()
    status_is(page, re.compile("The link is copied"))
    link = page.evaluate("navigator.clipboard.readText()")
    assert "#z=" in link
    assert "geteilt" not in unquote(link)
    opened.requests.clear()
    second = opened.new_page()
    second.goto(link)
    second.locator("html[data-ready]").wait_for()
    status_is(second, "Opened from a link. Read it before you run it.")
    assert {method for method, _ in opened.requests} == {"GET"}  # it is not run by itself
    assert not [url for _, url in opened.requests if link.split("=")[1] in url.partition("#")[0]]
    expect(second.get_by_label("Language")).to_have_value("node")
    second.get_by_role("button", name="Run").click()
    expect(second.get_by_role("log")).to_have_text("geteilt ✓ x")
    second.goto("about:blank")
    second.goto(link[:-9] + "A")
    expect(second.get_by_role("alert")).to_contain_text("The link is damaged")


def test_a_broken_connection_goes_on_where_it_was(visit: Open) -> None:
    opened = visit()
    offsets: list[str] = []

    def through(route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        offsets.append(route.url.rsplit("offset=")[1])

        def passed(message: str | bytes) -> None:
            route.send(message)
            if len(offsets) == 1:
                route.close(code=1012)

        server.on_message(passed)

    opened.page.route_web_socket(re.compile("/stream"), through)
    run(opened.page, "print('one', flush=True)\nopen('x', 'w').write('x' * 1_000_000)\nprint('two')")
    status_is(opened.page, re.compile(r"Finished. 2 lines of output."))
    assert opened.page.get_by_role("log").inner_text().splitlines() == ["one", "two"]
    assert offsets[0] == "0"
    assert offsets[1] in ("4", "8")  # after one line or both, whichever came with the first message


def test_events_where_no_socket_gets_through(visit: Open) -> None:
    opened = visit()
    opened.page.route_web_socket(re.compile("/stream"), lambda route: route.close(code=1011))
    run(opened.page, "print('one', flush=True)\nopen('x', 'w').write('x' * 1_000_000)\nprint('two')")
    status_is(opened.page, re.compile("Finished. 2 lines of output."))
    assert opened.page.get_by_role("log").inner_text().splitlines() == ["one", "two"]
    assert any("/events?offset=0" in url for _, url in opened.requests)


def test_keyboard_only(visit: Open) -> None:
    page = visit().page

    def focused() -> str:
        return str(page.evaluate("document.activeElement.id"))

    assert focused() == "editor"
    page.keyboard.press("Control+a")
    page.keyboard.type("if 1:\nprint('from the keyboard')")  # indents by itself
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("log")).to_have_text("from the keyboard")
    page.keyboard.press("Tab")
    assert focused() == "editor"  # it indents
    page.keyboard.press("Escape")
    seen = []
    while "output" not in seen:
        page.keyboard.press("Tab")
        seen.append(focused())
        assert len(seen) < 24
    assert {"run", "streams", "plain", "save-output"} <= set(seen)
    while focused() != "run":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    status_is(page, re.compile("Failed|Finished"))
    assert focused() == "run"  # running does not take the focus away


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_in_both_schemes_and_on_a_phone(visit: Open, scheme: str) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce").page
    unfold(page, "input", "file", "limit", "more")
    run(page, programs.LEAVES_FILES + programs.COLOURS + "sys.exit(1)")
    status_is(page, re.compile("Failed with exit code 1"))
    page.get_by_role("link", name="results/wave.png").wait_for()
    assert violations(page) == []
    dark = "rgb(20, 24, 26)"
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == dark) == (scheme == "dark")
    page.set_viewport_size({"width": 360, "height": 720})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert violations(page) == []
    unfold(page, "input", "file", "limit", "more")
    page.locator("#result-section").evaluate("section => section.scrollIntoView()")
    if scheme == "dark":
        screenshot(page, "web-page-phone.png")
    page.get_by_role("button", name="Settings").click()
    assert violations(page) == []
    page.get_by_label("Colours").select_option("light")
    page.get_by_role("button", name="Save", exact=True).click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    assert page.evaluate("document.querySelector('.status').getAnimations({subtree: true}).length") == 0


def test_the_page_works_on_another_host(
    visit: Open, elsewhere: str, service: Service, tmp_path: Path
) -> None:
    opened = visit(elsewhere)
    page = opened.page
    (tmp_path / "big").write_bytes(bytes(2_000_000))  # with a progress bar: by another way than the rest
    page.locator("#file-input").set_input_files(tmp_path / "big")
    page.get_by_role("textbox", name="Code").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(programs.LEAVES_FILES)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status")).to_have_text("Finished. 2 lines of output. 2 output files.")
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


def test_a_server_that_the_policy_does_not_name(visit: Open, service: Service) -> None:
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
