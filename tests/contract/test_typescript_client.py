"""A TypeScript client, its types made of the document by openapi-typescript, does a job's whole round."""

import asyncio
import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import programs
from support.live import Live

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MODULES = Path(sys.prefix) / "typescript" / "node_modules"  # deploy/setup.sh --dev puts them there
TIME_LIMIT = 60.0


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, with the types generated, checked against them and compiled; ready for node."""
    assert MODULES.is_dir(), "run deploy/setup.sh --dev: it installs what makes the TypeScript client"
    folder = tmp_path_factory.mktemp("typescript")
    for path in (ROOT / "tests" / "typescript").iterdir():
        shutil.copy(path, folder)
    (folder / "node_modules").symlink_to(MODULES)
    document = ROOT / "docs" / "openapi.json"
    for command in (
        ["openapi-typescript", str(document), "--default-non-nullable", "false", "-o", "sandrun.d.ts"],
        ["tsc", "--project", "."],
    ):
        said = subprocess.run(
            [MODULES / ".bin" / command[0], *command[1:]],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            cwd=folder,
        )
        assert said.returncode == 0, said.stdout + said.stderr
    return folder / "client.js"


async def test_it_submits_waits_reads_and_downloads(compiled: Path, live: Live, tmp_path: Path) -> None:
    program = tmp_path / "main.py"
    program.write_text(programs.FILES.code)
    process = await asyncio.create_subprocess_exec(
        *("node", compiled, str(live.client.base_url).rstrip("/"), program),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIME_LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()
    assert json.loads(out) == {
        "exit_code": 0,
        "verdict": "ok",
        "stdout": "done\n",
        "files": {path: base64.b64encode(data).decode() for path, data in programs.FILES.files.items()},
        "deleted": 204,
        "unknown": 404,
    }
