"""What a manifest's `requirements` comes to at the executor, and what is refused before."""

import io
import json
import tarfile
import zipfile

import httpx
import pytest

from sandrun_api.jobs.requirements import FILE_BYTES
from sandrun_shared.jobs import Installer
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live

pytestmark = pytest.mark.anyio
CODE = programs.HELLO.code.encode()
FILES = {
    "main.py": CODE,
    "deps/requirements-dev.txt": b"six\n",
    "package.json": b"{}",
    "package-lock.json": b"[]",
}
FILES |= {"src/Gemfile": b"gem 'x'", "src/Gemfile.lock": b"GEM"}
CASES = {
    "deps/requirements-dev.txt": (Installer.uv, {b"requirements.txt": b"six\n"}),
    "./package.json": (Installer.npm, {b"package.json": b"{}", b"package-lock.json": b"[]"}),
    "src/Gemfile": (Installer.bundler, {b"Gemfile": b"gem 'x'", b"Gemfile.lock": b"GEM"}),
}


@pytest.fixture(autouse=True)
def _installs(fake: FakeExecutor) -> None:
    fake.installers = tuple(Installer)


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo("./" + path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            archive.writestr("./" + path, data)
    return buffer.getvalue()


async def submit(live: Live, kind: str, requirements: str, files: dict[str, bytes] = FILES) -> httpx.Response:
    parts = {
        "plain": lambda: list(files.items()),
        "tar": lambda: [("upload.tar.gz", tar(files))],
        "zip": lambda: [("upload.zip", packed(files))],
    }[kind]()
    manifest = json.dumps({"entrypoint": "main.py", "requirements": requirements})
    return await live.client.post(
        "/submit", files=[("files", part) for part in parts], data={"manifest": manifest}
    )


@pytest.mark.parametrize("kind", ["plain", "tar", "zip"])
@pytest.mark.parametrize("requirements", CASES)
async def test_the_installer_gets_its_files(
    live_fake: Live, fake: FakeExecutor, kind: str, requirements: str
) -> None:
    response = await submit(live_fake, kind, requirements)
    status = await live_fake.client.get(response.headers["location"], params={"wait": 30})
    assert status.json()["verdict"] == "ok"
    assert (fake.executed[-1].installer, fake.required[-1]) == CASES[requirements]


async def test_a_run_names_one_of_its_files(live_fake: Live, fake: FakeExecutor) -> None:
    asked = {
        "code": programs.HELLO.code,
        "files": {"requirements.txt": "six"},
        "requirements": "requirements.txt",
    }
    response = await live_fake.client.post("/run", json=asked)
    assert response.json()["verdict"] == "ok"
    assert fake.required == [{b"requirements.txt": b"six"}]


@pytest.mark.parametrize("kind", ["plain", "tar", "zip"])
@pytest.mark.parametrize(
    ("requirements", "status", "reason"),
    [
        ("missing.txt", 400, "is not a file of the upload"),
        ("main.py", 400, "names a file called package.json"),
        ("../requirements.txt", 400, "leaves the work directory"),
        ("deps/", 400, "names a file called package.json"),
        ("large.txt", 413, "more than 2048 KiB"),
    ],
)
async def test_what_is_refused(
    live_fake: Live, fake: FakeExecutor, kind: str, requirements: str, status: int, reason: str
) -> None:
    files = {**FILES, "large.txt": b"#" * (FILE_BYTES + 1)}
    response = await submit(live_fake, kind, requirements, files)
    assert response.status_code == status, response.text
    assert reason in response.json()["reason"]
    assert fake.executed == []


@pytest.mark.parametrize(
    ("installers", "reason"),
    [((), "[executor] package_hosts is empty"), ((Installer.uv,), "cannot install from a Gemfile")],
)
async def test_a_server_that_cannot(
    live_fake: Live, fake: FakeExecutor, installers: tuple[Installer, ...], reason: str
) -> None:
    fake.installers = installers
    response = await submit(live_fake, "plain", "src/Gemfile")
    assert response.status_code == 400
    assert reason in response.json()["reason"]
    assert response.json()["errors"][0]["pointer"] == "/requirements"
