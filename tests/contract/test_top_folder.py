"""An archive of one folder, as `tar czf tests.tar.gz tests/` makes it: the folder is the root of the upload."""

import asyncio
import io
import json
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sandrun_shared.settings import Executor, Quota, Settings
from support.live import Live, serving

pytestmark = pytest.mark.anyio
SCRIPT = b"#!/bin/bash\npwd\nls\ncat data/in.txt\necho done > report.txt\n"
FILES = {"run_tests.sh": SCRIPT, "data/in.txt": b"in\n"}


@pytest.fixture
async def live(real_socket: Path) -> AsyncIterator[Live]:
    """The server in front of the real executor, which unpacks."""
    settings = Settings(executor=Executor(socket=str(real_socket)), quota=Quota(0, 0, 0, 0))
    async with serving(settings) as server:
        yield server


async def submit(live: Live, name: str, archive: bytes, **manifest: object) -> httpx.Response:
    return await live.client.post(
        "/submit",
        files=[("files", (name, archive))],
        data={"manifest": json.dumps({"entrypoint": "run_tests.sh", **manifest})},
    )


async def ended(live: Live, answer: httpx.Response) -> tuple[str, list[str]]:
    """What the job printed and the files that it left."""
    assert answer.status_code == 200, answer.text
    status = (await live.client.get(answer.headers["location"], params={"wait": 30})).json()
    logs = (await live.client.get(f"/logs/{status['job_id']}")).json()
    assert status["verdict"] == "ok", logs
    return logs["stdout"], sorted(status["output_files"])


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


async def test_the_example_as_it_stands(live: Live, tmp_path: Path) -> None:
    for name, data in FILES.items():
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    packed = await asyncio.create_subprocess_exec("tar", "czf", "tests.tar.gz", "tests/", cwd=tmp_path)
    assert await packed.wait() == 0
    answer = await submit(live, "tests.tar.gz", (tmp_path / "tests.tar.gz").read_bytes())
    assert answer.json()["notes"] == [
        "The folder 'tests' of the archive is its root: the entrypoint is only there."
    ]
    assert await ended(live, answer) == ("/work\ndata\nrun_tests.sh\nin\n", ["report.txt"])


async def test_a_zip_of_macos(live: Live) -> None:
    files = {f"tests/{name}": data for name, data in FILES.items()} | {"__MACOSX/tests/._run_tests.sh": b"x"}
    answer = await submit(live, "tests.zip", zipped(files), outputs=["report.txt"])
    stdout, outputs = await ended(live, answer)
    assert (stdout.split(), outputs) == (["/work", "__MACOSX", "data", "run_tests.sh", "in"], ["report.txt"])


async def test_a_folder_may_hold_one_of_its_own_name(live: Live) -> None:
    files = {f"tests/{name}": data for name, data in FILES.items()} | {
        "tests/tests/x": b"",
        "tests/.0/y": b"",
    }
    stdout, outputs = await ended(live, await submit(live, "tests.zip", zipped(files)))
    assert (stdout.split(), outputs) == (["/work", "data", "run_tests.sh", "tests", "in"], ["report.txt"])


async def test_an_archive_whose_root_has_the_entrypoint_is_as_it_was(live: Live) -> None:
    inside = {f"tests/{name}": data for name, data in FILES.items()}
    answer = await submit(live, "tests.zip", zipped(inside), entrypoint="tests/run_tests.sh")
    assert answer.json()["notes"] == []
    status = (await live.client.get(answer.headers["location"], params={"wait": 30})).json()
    logs = (await live.client.get(f"/logs/{status['job_id']}")).json()
    assert logs["stdout"] == "/work\ntests\n"  # and no data/in.txt there


@pytest.mark.parametrize(
    "files",
    [
        {"a/run_tests.sh": SCRIPT, "b/x": b""},
        {"a/run_tests.sh": SCRIPT, "x": b""},
        {"a/b/run_tests.sh": SCRIPT},
    ],
    ids=str,
)
async def test_which_of_two_is_not_guessed(live: Live, files: dict[str, bytes]) -> None:
    answer = await submit(live, "tests.zip", zipped(files))
    assert answer.status_code == 400
    assert "there is 'a/" in answer.json()["reason"]


async def test_an_empty_folder_at_the_top_counts(live: Live) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("a", "b"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        script = tarfile.TarInfo("a/run_tests.sh")
        script.size = len(SCRIPT)
        archive.addfile(script, io.BytesIO(SCRIPT))
    assert (await submit(live, "tests.tar", packed.getvalue())).status_code == 400
