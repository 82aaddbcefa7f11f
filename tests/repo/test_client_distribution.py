"""The client alone: its wheel, what it requires, and that it works without anything of the server."""

import email
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = {"fastapi", "starlette", "uvicorn", "pydantic", "msgspec", "pyseccomp", "websockets"}


def requirements(table: list[str]) -> set[str]:
    return {re.split(r"[ ;<>=!]", text)[0].lower() for text in table}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT / "api" / "sandrun_client",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("sandrun_client-*.whl"))


def test_what_it_holds_and_requires(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = next(name for name in names if name.endswith("METADATA"))
        metadata = email.message_from_bytes(archive.read(about))
    modules = {str(path.relative_to(ROOT / "api")) for path in (ROOT / "api/sandrun_client").rglob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == modules | {"sandrun_client/py.typed"}
    needed = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert requirements(needed) == {"click", "httpx", "pathspec", "watchfiles"}


def test_the_server_brings_what_its_copy_of_the_client_needs() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "api/sandrun_client/pyproject.toml").read_text())["project"]
    assert set(client["dependencies"]) <= set(whole["dependencies"])
    assert client["scripts"]["sandrun"] == whole["scripts"]["sandrun"]
    assert client["optional-dependencies"]["mcp"] == whole["optional-dependencies"]["mcp"]


def test_it_works_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(SERVER | {"mcp", "mcp_types", "nacl", "sandrun_api", "sandrun_executor", "sandrun_shared"})}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, {str(tmp_path)!r})
import sandrun_client
assert sandrun_client.__file__.startswith({str(tmp_path)!r})
from sandrun_client.cli.main import main
main(["--version"])
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sandrun ")
    lacking = code.replace('"--version"', '"mcp"')
    done = subprocess.run(
        [sys.executable, "-I", "-c", lacking], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert "pip install 'sandrun-client[mcp]'" in done.stderr
