"""What few programs need: packages, variables, patterns, limits; faults next to their fields; long uploads."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from support import page_programs as programs
from support.browser import Visit, violations
from support.registry import Registry, address, wheel
from support.service import COMMAND, Service
from support.web_page import job_of, run, status_is, unfold, write

Open = Callable[..., Visit]
MIB = 1 << 20
FIELDS = {
    "Packages to install": "greeting==1.0",
    "Environment variables": "# who\nexport NAME=Ann Lee\nQUOTED='x'=",
    "Output files to keep": "results/\n\n*.csv",
    "CPU time limit (seconds)": "20",
}
CHOICES = ("New interpreter (no preloaded packages)", "Buffered output (not live)", "Low priority")


@pytest.fixture(scope="module")
def service(_root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that installs packages of a registry that is here."""
    folder = tmp_path_factory.mktemp("registry")
    with Registry(folder, address(3)) as registry:
        registry.add(wheel("greeting", "1.0", {"greeting.py": "WORD = 'Hello,'"}))
        running = Service(
            environment={"SANDRUN_API__TRUSTED_PROXIES": "127.0.0.1"},
            package_hosts="registry.test",
            package_networks=f"{registry.address}/32",
            package_index_url="https://registry.test/simple/",
            package_ca=registry.certificate,
        )
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{registry.address} registry.test\n")
        program = 'mount --bind "$0" /etc/hosts && exec "$@"'
        running.command = ["unshare", "--mount", "sh", "-c", program, str(hosts), *COMMAND]
        with running:
            yield running


def fill(page: Page) -> None:
    for label, text in FIELDS.items():
        page.get_by_label(label).fill(text)
    for label in CHOICES:
        page.get_by_label(label).check()


def test_packages_variables_and_patterns(visit: Open, service: Service, tmp_path: Path) -> None:
    page = visit().page
    unfold(page, "limit", "more")
    fill(page)
    expect(page.locator("#more-summary")).to_have_text(
        "packages · 2 variables · keeps results/, *.csv · new interpreter · buffered · low priority"
    )
    write(page, programs.GREETS)
    job = job_of(page, lambda: page.keyboard.press("Control+Enter"))
    status_is(page, "Finished. 1 line of output. 2 output files.")
    expect(page.get_by_role("log")).to_have_text("Hello, Ann Lee 'x'=")
    expect(page.locator("#numbers dt")).to_contain_text(["Queued", "Packages", "Environment"])
    for path in ("results/deep/a.txt", "table.csv"):
        expect(page.get_by_role("link", name=path)).to_be_visible()
    assert service.status(job)["limits"]["cpu_seconds"] == 20
    # The same of a file that was added.
    page.get_by_label("Packages to install").fill("no such package")
    named = tmp_path / "requirements-dev.txt"
    named.write_text("greeting")
    page.locator("#file-input").set_input_files(named)
    page.get_by_label("Take packages from").select_option(named.name)
    expect(page.get_by_label("Packages to install")).to_be_hidden()
    expect(page.locator("#more-summary")).to_contain_text("packages of requirements-dev.txt")
    page.get_by_role("button", name="Run", exact=True).click()
    status_is(page, "Finished. 1 line of output. 2 output files.")


def test_faults_are_beside_their_fields(visit: Open) -> None:
    page = visit().page
    faults = [
        ("File", "../main.py", "The file must be inside the work directory"),
        ("Environment variables", "A=1\nB", "Line 2 of the environment variables is not of the form"),
        ("Environment variables", "LD_PRELOAD=x", "'env' cannot set LD_PRELOAD: the sandbox relies on it."),
        ("Output files to keep", "../x", "An output pattern leaves the work directory."),
    ]
    for label, text, reason in faults:
        field = page.get_by_label(label, exact=True)
        before = field.input_value()
        field.evaluate("(field, text) => { field.value = text; }", text)  # without being looked at
        run(page, "print(1)")
        expect(page.get_by_role("alert")).to_contain_text(reason)
        expect(field).to_be_focused()  # and unfolded, then
        expect(field).to_have_accessible_description(re.compile(re.escape(reason)))
        expect(page.locator("p.fault:visible")).to_contain_text([reason])
        if (label, text, reason) == faults[-1]:
            assert violations(page) == []
        field.fill(before)
        expect(page.locator("p.fault:visible")).to_have_count(0)
        expect(field).not_to_have_attribute("aria-invalid", "true")
    run(page, "print(1)")
    status_is(page, "Finished. 1 line of output.")


def test_a_link_carries_all_of_it(visit: Open) -> None:
    opened = visit()
    page = opened.page
    unfold(page, "limit", "more")
    fill(page)
    page.locator("#gpu").evaluate("box => box.click()")  # on a server that had one
    page.get_by_role("button", name="Copy link").click()
    status_is(page, re.compile("environment variables"))
    second = opened.new_page()
    second.goto(page.url)
    status_is(second, "Opened from a link. Read it before you run it.")
    for label, text in FIELDS.items():
        expect(second.get_by_label(label)).to_be_visible()  # nobody runs what they did not see
        expect(second.get_by_label(label)).to_have_value(text)
    for label in (*CHOICES, "Use a GPU"):
        expect(second.get_by_label(label)).to_be_checked()
    second.get_by_role("button", name="Run", exact=True).click()
    reason = "This server has no GPU for jobs: leave 'gpu' out."
    expect(second.get_by_label("Use a GPU")).to_have_accessible_description(reason)


def test_a_long_upload_shows_how_far_it_is(visit: Open, tmp_path: Path) -> None:
    opened = visit()
    page = opened.page
    (tmp_path / "big").write_bytes(bytes(2 * MIB))
    page.locator("#file-input").set_input_files(tmp_path / "big")
    devtools = opened.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": MIB // 8}
    devtools.send("Network.emulateNetworkConditions", slow)
    run(page, programs.READS_FILES)
    status_is(page, "Uploading 2 MB…")
    bar = page.get_by_role("progressbar", name="Upload")
    expect(bar).to_have_accessible_description(re.compile(r"^[\d.]+ [KM]B of 2 MB"))
    page.wait_for_function("bar => bar.value > 0 && bar.value < 1", arg=bar.element_handle())
    assert violations(page) == []
    page.get_by_role("button", name="Cancel").click()
    status_is(page, "Cancelled. Nothing was run.")
    expect(bar).to_be_hidden()
    devtools.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    run(page, programs.READS_FILES)
    expect(page.get_by_role("log")).to_contain_text(f"big {2 * MIB}")
    status_is(page, re.compile("Finished"))
    expect(bar).to_be_hidden()
