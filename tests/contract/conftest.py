"""One suite, two executors: the fake one and, as root, the real one."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from sandrun_shared.keys import KeyKind, write_new
from sandrun_shared.settings import Executor, Quota, Settings
from support.executor import ENDS_WITH_PARENT, SOCKETS, sweep
from support.fake_executor import FakeExecutor
from support.live import Live, serving

START_SECONDS = 30.0


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio is what the server runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def real_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a real executor, started once for all tests."""
    if os.geteuid() != 0 and os.environ.get("SANDRUN_SYSTEM_MUST_WORK") != "1":
        pytest.skip("needs root")
    folder = tmp_path_factory.mktemp("executor")
    path = folder / "executor.sock"
    SOCKETS.add(path)
    config = folder / "sandrun.toml"
    key = folder / "worker.key"
    write_new(key, KeyKind.worker, os.urandom(32))
    config.write_text(
        f'[executor]\nsocket = "{path}"\nuser = "root"\nslots = 2\nparked = 1\nworker_key = "{key}"\n'
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        notify.settimeout(START_SECONDS)
        process = subprocess.Popen(
            [*ENDS_WITH_PARENT, sys.executable, "-m", "sandrun_executor", "--config", str(config)],
            env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(folder / "notify")},
        )
        try:
            while b"READY=1" not in notify.recv(4096):
                pass
            yield path
        finally:
            process.terminate()
            assert process.wait(START_SECONDS) == 0
            assert not sweep(path)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeExecutor]:
    """A fake executor with eight slots."""
    async with FakeExecutor(tmp_path / "executor.sock") as executor:
        yield executor


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
async def executor_socket(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of an executor: once the fake one, once the real one."""
    if request.param == "real":
        yield request.getfixturevalue("real_socket")
        return
    async with FakeExecutor(tmp_path / "executor.sock") as executor:
        yield executor.path


def settings_for(path: Path, **tables: object) -> Settings:
    """Settings that use this socket, without quotas."""
    quota = Quota(cpu_seconds_per_minute=0, concurrent_jobs=0, jobs_per_hour=0, queued_jobs=0)
    return Settings(**{"executor": Executor(socket=str(path)), "quota": quota, **tables})  # type: ignore[arg-type]


@pytest.fixture
def settings_of() -> Callable[[Path], Settings]:
    """What makes the server's settings; a module may have its own."""
    return settings_for


@pytest.fixture
async def live(executor_socket: Path, settings_of: Callable[[Path], Settings]) -> AsyncIterator[Live]:
    """The server in front of either executor."""
    async with serving(settings_of(executor_socket)) as server:
        yield server


@pytest.fixture
async def live_fake(fake: FakeExecutor, settings_of: Callable[[Path], Settings]) -> AsyncIterator[Live]:
    """The server in front of the fake executor only."""
    async with serving(settings_of(fake.path)) as server:
        yield server


@pytest.fixture
def deadline() -> float:
    """Seconds after which a wait counts as a hang; never a measure of speed."""
    return 20.0
