"""The documentation matches the code, and the scripts are valid shell."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from sandrun_shared import settings

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "deploy").glob("*.sh"), *(ROOT / "tests").rglob("*.sh"), ROOT / ".ci" / "run"])
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_configuration_page_is_current() -> None:
    path = ROOT / "docs" / "generate_configuration.py"
    spec = importlib.util.spec_from_file_location("generate_configuration", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "configuration.md").read_text() == module.render(), f"run python {path}"


def test_every_setting_is_listed() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    for table in settings.Settings.__struct_fields__:
        for key in type(getattr(settings.Settings(), table)).__struct_fields__:
            assert f"| `{key}` |" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_script_parses_and_may_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", script], check=True, timeout=10)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_pin_has_a_hash(name: str) -> None:
    entries = (ROOT / "deploy" / name).read_text().replace("\\\n", " ").splitlines()
    pins = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    assert pins
    assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []


def test_lock_covers_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[0]
    wanted = set(re.findall(r'^    "([a-z0-9-]+)>=', project, re.MULTILINE))
    locked = set(
        re.findall(r"^([a-z0-9-]+)==", (ROOT / "deploy/requirements.lock").read_text(), re.MULTILINE)
    )
    assert wanted
    assert wanted <= locked
