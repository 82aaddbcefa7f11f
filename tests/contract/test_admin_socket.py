"""The operator's socket: who may ask, what is answered, and what never is."""

import asyncio
import json
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandrun_admin import admin, cli
from sandrun_api import admin_socket
from sandrun_api.edge.clients import key_of
from sandrun_shared.admin import NAME, REQUEST_BYTES
from sandrun_shared.settings import Api, Executor, Quota, Settings
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
CANARY = "canary-7d1f"
ASKS = """
import os, socket, sys
os.setgid(65534), os.setuid(65534)
with socket.socket(socket.AF_UNIX) as asking:
    asking.connect(sys.argv[1])
    try:
        asking.sendall(b'{"command": "jobs"}\\n')
        print("answered", asking.recv(100))
    except (BrokenPipeError, ConnectionResetError):
        print("answered", b"")
"""


@pytest.fixture
async def live(fake: FakeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """A server with a runtime directory, whose clients come through a proxy."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}:/nowhere")
    quota = Quota(cpu_seconds_per_minute=0, concurrent_jobs=1, jobs_per_hour=0, network_prefix="24,56")
    settings = Settings(
        executor=Executor(socket=str(fake.path)), quota=quota, api=Api(trusted_proxies="127.0.0.0/8")
    )
    async with serving(settings) as server:
        yield server
    assert not (tmp_path / NAME).exists()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The socket."""
    return tmp_path / NAME


async def ask(path: Path, **request: object) -> dict[str, Any]:
    return await asyncio.to_thread(admin.ask, path, **request)


async def submit(live: Live, last: int = 1, program: programs.Program = programs.WAITS) -> str:
    answer = await live.client.post(
        "/submit",
        files=[("files", (f"{CANARY}.py", program.code.encode()))],
        data={"manifest": json.dumps({"entrypoint": f"{CANARY}.py", "args": [CANARY], "env": {"X": CANARY}})},
        headers={"x-forwarded-for": f"198.51.100.{last}"},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


async def test_jobs_are_listed_by_hashes(live: Live, path: Path, fake: FakeExecutor) -> None:
    first, second = await submit(live), await submit(live)
    await fake.until(lambda: fake.running == 1)
    answer = await ask(path, command="jobs")
    running, queued = answer["jobs"]
    assert (running["state"], queued["state"]) == ("running", "queued")
    assert running["client"] == queued["client"] == key_of("198.51.100.1")
    assert running["age_seconds"] >= queued["age_seconds"] >= 0
    assert set(running) == {
        "job", "state", "verdict", "age_seconds", "cpu_seconds", "memory_bytes", "client", "network", "exempt",
    }  # fmt: skip
    text = json.dumps(answer)
    for secret in (CANARY, first, second, "198.51.100"):
        assert secret not in text


async def test_cancelled_by_its_hash_its_client_and_its_network(
    live: Live, path: Path, fake: FakeExecutor
) -> None:
    ids = [await submit(live, last) for last in (1, 1, 2, 3)]
    await fake.until(lambda: fake.running == 3)
    listed = (await ask(path, command="jobs"))["jobs"]
    waiting = next(job for job in listed if job["state"] == "queued")
    assert await ask(path, command="cancel", target=waiting["job"]) == {"cancelled": 1}
    assert await ask(path, command="cancel", target=key_of("198.51.100.2")) == {"cancelled": 1}
    await fake.until(lambda: fake.running == 2)
    assert await ask(path, command="cancel", target=waiting["network"]) == {"cancelled": 2}
    for job_id in ids:
        status = (await live.client.get(f"/status/{job_id}", params={"wait": 20})).json()
        assert (status["verdict"], status["detail"]) == ("cancelled", "cancelled by the operator")
        assert status["expires_at"] is not None
    with pytest.raises(admin.AdminError, match="no job that waits or runs"):
        await ask(path, command="cancel", target="all")
    await submit(live)
    assert await ask(path, command="cancel", target="all") == {"cancelled": 1}


async def test_a_pause_takes_no_jobs_and_ends_none(live: Live, path: Path, fake: FakeExecutor) -> None:
    job_id = await submit(live)
    await fake.until(lambda: fake.running == 1)
    await ask(path, command="pause", reason="Moving house.", retry_after=77)
    headers = {"content-type": "text/plain"}
    answer: httpx.Response = await live.client.post("/run", content="print()", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "77")
    assert answer.json()["reason"] == "Moving house."
    assert (await live.client.get("/stats")).json()["your_quota"]["reason"] == "Moving house."
    assert (await ask(path, command="jobs"))["paused"] == "Moving house."
    assert (await live.client.get(f"/status/{job_id}")).json()["status"] == "running"
    assert await ask(path, command="resume") == {"resumed": True}
    assert await ask(path, command="resume") == {"resumed": False}
    answer = await live.client.post("/run", content=programs.HELLO.code, headers=headers)
    assert answer.status_code == 200


async def test_denied_until_the_api_ends(live: Live, path: Path) -> None:
    await ask(path, command="deny", target="203.0.113.0/24")
    answer = await ask(path, command="deny", target=key_of("198.51.100.1"))
    assert answer["denied"] == sorted(["203.0.113.0/24", key_of("198.51.100.1")])
    codes = [
        (await live.client.get("/stats", headers={"x-forwarded-for": client})).status_code
        for client in ("203.0.113.5", "198.51.100.1", "198.51.100.2")
    ]
    assert codes == [403, 403, 200]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense\n",
        b"[]\n",
        b'{"command": "shell"}\n',
        b'{"command": "jobs", "more": 1}\n',
        b'{"command": "cancel", "target": "../x"}\n',
        b'{"command": "cancel"}\n',
        b'{"command": "pause", "retry_after": 0}\n',
        b'{"command": "deny", "target": "0.0.0.0/33"}\n',
        b'{"command": "pause", "reason": "%s"}\n' % (b"x" * 501),
        b"x" * (2 * REQUEST_BYTES) + b"\n",
    ],
    ids=lambda line: line[:30],
)
async def test_a_bad_request_changes_nothing(live: Live, path: Path, line: bytes, deadline: float) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    writer.write_eof()
    async with asyncio.timeout(deadline):
        assert "error" in json.loads(await reader.readline())
    writer.close()
    answer = await ask(path, command="jobs")
    assert (answer["paused"], answer["denied"]) == (None, [])


async def test_one_that_says_nothing_is_hung_up_on_and_few_are_served(
    live: Live, path: Path, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    silent = [await asyncio.open_unix_connection(str(path)) for _ in range(admin_socket.CONNECTIONS)]
    with pytest.raises(admin.AdminError, match="hung up"):
        await ask(path, command="jobs")
    for _, writer in silent:
        writer.close()
        await writer.wait_closed()
    monkeypatch.setattr(admin_socket, "SECONDS", 0.0)
    reader, writer = await asyncio.open_unix_connection(str(path))
    async with asyncio.timeout(deadline):
        assert await reader.read() == b""
    writer.close()


def opened_to_others(path: Path) -> int:
    """The socket's mode; the folders above it that are this test's can be passed through afterwards."""
    for folder in path.parents:
        if "pytest" in str(folder):
            folder.chmod(folder.stat().st_mode | 0o011)
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.root
async def test_nobody_but_root_and_the_api_may_ask(live: Live, path: Path, deadline: float) -> None:
    assert await asyncio.to_thread(opened_to_others, path) == 0o600

    async def asked_by_nobody() -> str:
        process = await asyncio.create_subprocess_exec(
            *("/usr/bin/python3", "-I", "-c", ASKS, str(path)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        async with asyncio.timeout(deadline):
            return (await process.communicate())[0].decode()

    assert "PermissionError" in await asked_by_nobody()
    await asyncio.to_thread(path.chmod, 0o666)  # whatever became of the mode, the kernel says who asks
    assert await asked_by_nobody() == "answered b''\n"
    assert "jobs" in await ask(path, command="jobs")


def test_without_a_folder_nobody_listens() -> None:
    assert admin_socket.path_of({}) is None
    assert admin_socket.path_of({"RUNTIME_DIRECTORY": "/run/a:/run/b"}) == Path("/run/a") / NAME


def test_what_a_crash_left_is_replaced(path: Path) -> None:
    for _ in range(2):
        with admin_socket.listen(path) as listener:
            assert listener.family == socket.AF_UNIX


def sandrun(*words: str) -> object:
    """The exit status of the operator's command."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["admin", *words])
    return ended.value.code


async def test_the_command(live: Live, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await submit(live)
    here = ("--socket", str(path))
    assert await asyncio.to_thread(sandrun, "jobs", *here) == 0
    assert key_of("198.51.100.1") in capsys.readouterr().out
    assert await asyncio.to_thread(sandrun, "pause", "Moving\x1b[2J house.", *here) == 0
    assert await asyncio.to_thread(sandrun, "jobs", "--json", *here) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert json.loads(said[said.index("{") :])["paused"] == "Moving\x1b[2J house."
    assert await asyncio.to_thread(sandrun, "cancel", "nothing", *here) == 125
    assert await asyncio.to_thread(sandrun, "jobs", "--socket", str(path.with_name("x"))) == 125
    assert "the api does not run here" in capsys.readouterr().err
