"""The page of deploy/examples, driven by Streamlit's own test of pages against the real service."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.service import Service

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "deploy" / "examples" / "streamlit_app.py"
SNIPPET = ROOT / "docs" / "examples" / "asked" / "streamlit_snippet.py"
LOCK = ROOT / "deploy" / "requirements-streamlit.lock"
VISITOR = "203.0.113.9"
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MAKES_FILES = f"""
import base64, sys
open("p.png", "wb").write(base64.b64decode("{PICTURE}"))
open("a.txt", "w").write("text")
print(input(), sys.argv[1:])
"""


@pytest.fixture(scope="module")
def streamlit() -> Path:
    """The folder with Streamlit, installed once for each lock file."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    folder = Path(sys.prefix) / f"streamlit-{digest}"
    if not (folder / "complete").exists():
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--upgrade"]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), "-r", str(LOCK)]
        subprocess.run(command, check=True, timeout=110)
        (folder / "complete").touch()
    return folder


class Page(Service):
    """A service that believes what a page on this machine says about its visitors."""

    def __init__(self) -> None:
        super().__init__()
        self._environment["SANDRUN_API__TRUSTED_PROXIES"] = "127.0.0.1/32"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Page() as running:
        yield running


@pytest.fixture
def page(service: Service, streamlit: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(streamlit))
    monkeypatch.setenv("SANDRUN_URL", f"http://127.0.0.1:{service.port}")
    from streamlit.runtime.context import ContextProxy
    from streamlit.testing.v1 import AppTest

    monkeypatch.setattr(ContextProxy, "ip_address", VISITOR)
    page = AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not page.exception
    return page


def run(page: Any, code: str, interpreter: str = "python3") -> Any:
    page.selectbox(key="interpreter").select(interpreter)
    page.text_area(key="code").input(code)
    page = page.button[0].click().run()
    assert not page.exception
    return page


def test_short() -> None:
    assert len(PAGE.read_text().splitlines()) < 80


def test_run(page: Any, service: Service) -> None:
    assert "node" in page.selectbox(key="interpreter").options
    page.text_input(key="args").input("a 'b c'")
    page.text_area(key="stdin").input("typed")
    page = run(page, MAKES_FILES)
    assert [box.value for box in page.success] == ["It ended well."]
    assert [box.value for box in page.code] == ["typed ['a', 'b c']"]
    labels = [button.proto.label for button in page.get("download_button")]
    assert sorted(labels) == ["a.txt (4 bytes)", "p.png (70 bytes)"]
    assert len(page.get("image")) == 1
    used = [
        service.client.get("/stats", headers=headers).json()["your_quota"]["jobs_this_hour"]
        for headers in ({}, {"X-Forwarded-For": VISITOR})
    ]
    assert used == [0, 1]


def test_another_language_and_a_failure(page: Any) -> None:
    page = run(page, "console.log('out'); console.error('err'); process.exit(3)", "node")
    assert [box.value for box in page.warning] == ["It ended with exit code 3."]
    assert [box.value for box in page.code] == ["out", "err"]
    page = run(page, "print('again')")
    assert ([box.value for box in page.code], len(page.warning)) == (["again"], 0)


def test_a_time_limit(page: Any) -> None:
    page.slider(key="timeout").set_value(1)
    page = run(page, "import signal; print('so far', flush=True); signal.pause()")
    assert [box.value for box in page.warning] == ["It ran longer than its time limit."]
    assert [box.value for box in page.code] == ["so far"]


def test_what_cannot_be_sent(page: Any) -> None:
    page.text_input(key="args").input("'")
    page = run(page, "print(1)")
    assert [box.value for box in page.error] == ["No closing quotation"]
    assert len(page.code) == 0


def test_without_a_server(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDRUN_URL", "http://127.0.0.1:9")
    page = page.run()
    assert not page.exception
    assert len(page.error) == 1


def test_the_page_of_a_few_lines(service: Service, streamlit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in docs/faq.md."""
    monkeypatch.syspath_prepend(str(streamlit))
    monkeypatch.setenv("SANDRUN_URL", f"http://127.0.0.1:{service.port}")
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_file(str(SNIPPET), default_timeout=60).run()
    page.text_area[0].input("print(6 * 7)")
    page.button[0].click().run()
    assert not page.exception
    assert [code.value for code in page.code] == ["42"]  # Streamlit takes the last newline away
