"""The SDK against the real service: both clients do the same jobs."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandrun_client import AsyncSandrunClient, Conflict, ReceiptError, SandrunClient, UnknownJob, WaitTimeout
from sandrun_shared.keys import KeyKind, text_of, write_new
from support.service import Service

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
SEED = bytes(range(32))
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MAKES_FILES = f"""
import base64, os, sys
os.makedirs("results")
open("results/data.csv", "w").write("1,2\\n")
open("p.png", "wb").write(base64.b64decode("{PICTURE}"))
print("out", *sys.argv[1:]); print("err", file=sys.stderr); sys.exit(3)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose worker signs."""
    key = tmp_path_factory.mktemp("key") / "worker.key"
    write_new(key, KeyKind.worker, SEED)
    with Service(worker_key=key) as running:
        yield running


@pytest.fixture(scope="module")
def worker_id() -> str:
    from nacl.signing import SigningKey

    return text_of(bytes(SigningKey(SEED).verify_key))


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, service: Service, worker_id: str) -> Callable[..., Any]:
    """Calls a method of either client, which trusts only that worker."""
    url = f"http://127.0.0.1:{service.port}"

    def sync(name: str, *args: Any, **options: Any) -> Any:
        with SandrunClient(url, verify_with=worker_id) as client:
            found = getattr(client, name)(*args, **options)
            return list(found) if isinstance(found, Iterator) else found

    def unsync(name: str, *args: Any, **options: Any) -> Any:
        async def main() -> Any:
            async with AsyncSandrunClient(url, verify_with=worker_id) as client:
                found = getattr(client, name)(*args, **options)
                return [item async for item in found] if hasattr(found, "__aiter__") else await found

        return anyio.run(main)

    return sync if request.param == "sync" else unsync


def test_run(call: Callable[..., Any]) -> None:
    result = call("run", MAKES_FILES, args=["ä"], timeout=20, files={"x.txt": "x"})
    assert (result.stdout, result.stderr, result.exit_code) == ("out ä\n", "err\n", 3)
    assert (result.verdict, result.status) == ("nonzero_exit", "failed")
    assert {file.path for file in result.files} == {"results/data.csv", "p.png"}
    assert [image.path for image in result.images] == ["p.png"]
    call("cancel", result.job_id)


def test_run_and_wait_with_a_folder(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "main.py").write_text(MAKES_FILES)
    (folder / ".gitignore").write_text("big\n")
    (folder / "big").write_bytes(os.urandom(1000))
    (folder / "helper.py").write_text("")
    result = call("run_and_wait", directory=folder, entrypoint="main.py", args=["x"], outputs=["results/"])
    assert (result.logs.stdout, result.exit_code) == ("out x\n", 3)
    assert [file.path for file in result.output_files] == ["results/data.csv"]
    saved = call("download_all", result.job_id, tmp_path / "out")
    assert [path.read_text() for path in saved] == ["1,2\n"]
    with pytest.raises(UnknownJob):
        call("get_status", result.job_id)


def test_a_large_file_comes_back_whole(call: Callable[..., Any]) -> None:
    data = os.urandom(3 << 20)
    code = "import shutil; shutil.copy('in.bin', 'out.bin'); open('in.bin', 'a').close()"
    steps: list[tuple[int, int | None]] = []
    result = call(
        "run_and_wait", code=code, files={"in.bin": data}, progress=lambda *step: steps.append(step)
    )
    assert steps[-1][0] == steps[-1][1]
    assert (
        hashlib.sha256(call("read_file", result.job_id, "out.bin")).digest() == hashlib.sha256(data).digest()
    )
    call("cancel", result.job_id)


def test_live_output(call: Callable[..., Any]) -> None:
    job = call("submit_code", "print('é'); import os; os.write(1, b'\\xff'); print(flush=True); input()")
    streamed = call("stream_logs", job.job_id)
    logs = call("get_logs", job.job_id)
    assert logs.stdout_bytes.replace(b"\xff", b"", 1) == "é\n\n".encode()
    assert "EOFError" in logs.stderr
    for name, data in (("stdout", logs.stdout_bytes), ("stderr", logs.stderr_bytes)):
        assert b"".join(item.data for item in streamed if item.stream == name) == data
    call("cancel", job.job_id)


def test_a_job_that_still_runs(call: Callable[..., Any]) -> None:
    job = call("submit_code", "import time; time.sleep(600)")
    with pytest.raises(Conflict):
        call("list_outputs", job.job_id)
    with pytest.raises(WaitTimeout):
        call("wait", job.job_id, wait_timeout=0.2)
    call("cancel", job.job_id)
    with pytest.raises(UnknownJob):
        call("wait", job.job_id)


def test_who_answers_is_checked(call: Callable[..., Any], service: Service) -> None:
    assert call("test_connection").verified
    other = text_of(bytes(32))
    with SandrunClient(f"http://127.0.0.1:{service.port}", verify_with=other) as client:
        with pytest.raises(ReceiptError):
            client.test_connection()
        with pytest.raises(ReceiptError):
            client.run("print(1)")


def test_stats_and_environments(call: Callable[..., Any]) -> None:
    assert call("get_stats")["system"]["capacity"] == 4
    assert "default" in call("list_environments")["templates"]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_of_the_page(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[number]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "SANDRUN_URL": f"http://127.0.0.1:{service.port}"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = ("42\n 0 ok", "0\n\n1\n\n4", "results/answer.txt 42", "live\n0\n\n1\n\n4", "42\n42\n")
    assert any(answer in done.stdout for answer in answers)
