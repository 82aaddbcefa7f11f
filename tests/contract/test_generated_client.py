"""A client that openapi-python-client makes of the document does a job's whole round."""

import importlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import programs
from support.live import Live

pytestmark = pytest.mark.anyio

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
NAME = "sandrun_generated"


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the generated package, ready for import."""
    program = "from openapi_python_client.cli import app; app()"
    said = subprocess.run(
        [
            *(sys.executable, "-P", "-c", program, "generate", "--meta", "none"),
            *("--path", str(DOCUMENT), "--output-path", str(tmp_path / NAME)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    monkeypatch.syspath_prepend(tmp_path)
    return NAME


async def test_it_submits_waits_reads_and_downloads(generated: str, live: Live) -> None:
    def part(name: str) -> Any:
        return importlib.import_module(f"{generated}.{name}")

    client = part("client").Client(base_url=str(live.client.base_url))
    upload = part("types").File(io.BytesIO(programs.FILES.code.encode()), "main.py", "text/x-python")
    body = part("models").SubmitJobBody(files=[upload], manifest=part("models").Manifest("main.py"))
    async with client:
        submitted = await part("api.jobs.submit_job").asyncio(client=client, body=body)
        status = await part("api.jobs.get_job_status").asyncio(submitted.job_id, client=client, wait=30)
        assert (status.status, status.exit_code) == ("completed", 0)
        logs = await part("api.logs.get_job_logs").asyncio(submitted.job_id, client=client)
        assert logs.stdout == "done\n"
        listed = await part("api.outputs.list_outputs").asyncio(submitted.job_id, client=client)
        assert sorted(listed.files) == sorted(programs.FILES.files)
        download = part("api.outputs.download_file").asyncio_detailed
        for path, data in programs.FILES.files.items():
            assert (await download(submitted.job_id, path, client=client)).content == data
        deleted = await part("api.jobs.delete_job").asyncio_detailed(submitted.job_id, client=client)
        assert deleted.status_code == 204
        unknown = await part("api.jobs.get_job_status").asyncio(submitted.job_id, client=client)
        assert (type(unknown).__name__, unknown.status) == ("ErrorBody", 404)
    for name in [name for name in sys.modules if name.split(".")[0] == generated]:
        del sys.modules[name]
