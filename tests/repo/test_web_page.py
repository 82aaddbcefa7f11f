"""Rules of the web page: it is shipped, short, and never evaluates text."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "api" / "sandrun_api" / "web" / "static"
OWN = sorted(path for path in STATIC.rglob("*.*") if "vendor" not in path.parts)
MODULES = [path for path in OWN if path.suffix == ".js"]
LONGEST_MODULE = 400
LONGEST_LINE = 160
# Ways to make markup or programs from text, and to tell others of the visitor.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|sendBeacon|document\.cookie"
)


def test_the_wheel_holds_the_page() -> None:
    shipped = {Path(file.path) for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {path for path in STATIC.rglob("*") if path.is_file()} <= shipped


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_sources_are_short_and_plain(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGEST_MODULE
    assert [line for line in lines if len(line) > LONGEST_LINE and path.suffix == ".js"] == []
    assert not FORBIDDEN.search("\n".join(lines))
    # Of other hosts nothing is named but the name space of SVG.
    assert re.findall(r"https?://\w[\w.]*", "\n".join(lines)) in ([], ["http://www.w3.org"])


@pytest.mark.parametrize("bundle", ["codemirror", "xterm", "swagger-ui"])
def test_bundles_are_the_locked_ones(bundle: str) -> None:
    packages = json.loads((ROOT / "deploy" / "editor" / "package-lock.json").read_text())["packages"]
    licences = (STATIC / "assets" / "vendor" / f"{bundle}-licences.txt").read_text()
    bundled = dict(re.findall(r"^(\S+) (\d+\.\d+\.\d+)$", licences, re.MULTILINE))
    assert bundled
    for name, version in bundled.items():
        assert packages[f"node_modules/{name}"]["version"] == version, "run deploy/vendor-editor.sh"
    assert all(entry.get("integrity") for path, entry in packages.items() if path)


def test_modules_do_what_they_say() -> None:
    node = shutil.which("node")
    assert node
    tests = ROOT / "tests" / "web" / "modules.mjs"
    done = subprocess.run([node, "--test", tests], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
