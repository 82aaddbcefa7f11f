"""An executor that is out of descriptors leaks none, loses nothing, and waits instead of spinning."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandrun_executor import server
from sandrun_executor.access import Access
from sandrun_executor.packages.installation import Installation, InstallationRunner
from sandrun_executor.sandboxes.execution import Execution
from sandrun_executor.sandboxes.output import LogPump
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_executor.server import Peer, Server
from sandrun_shared.jobs import Installer, Limits, Outcome, Verdict
from sandrun_shared.languages import BY_NAME
from sandrun_shared.protocol import Execute, Finished, Output
from sandrun_shared.settings import Settings
from support.descriptors import only, open_now

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class EnoughError(Exception):
    """Checks that there were enough descriptors for the test itself."""


def _sandbox() -> Sandbox:
    return Sandbox(
        cast(Any, None), cast(Any, None), cast(Any, SimpleNamespace(cgroup=None, uid=os.geteuid())), Limits()
    )


async def test_a_job_that_gets_no_descriptors_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hand_over(*_: object) -> None:
        raise EnoughError

    monkeypatch.setattr(Execution, "_hand_over", hand_over)
    request, record = Execute("job", "python3", Limits()), cast(Any, SimpleNamespace(log_sealer=None))
    sandbox, sink = _sandbox(), cast(Any, None)
    before, failed = open_now(), 0
    while failed < 100:
        try:
            with only(failed):
                await Execution(sandbox, request, sink, record).run(BY_NAME["python3"], [0, 0], 0.0)
        except EnoughError:
            break
        except OSError as error:
            assert error.errno == errno.EMFILE
            failed += 1
        assert open_now() == before
    assert failed == 9  # two pipes, four memfds, no stdin
    assert open_now() == before
    sandbox._init.close()
    sandbox._job.close()


@pytest.mark.parametrize("left", range(4))
async def test_pipes_of_a_job_are_both_there_or_none(left: int) -> None:
    before = open_now()
    with only(left), pytest.raises(OSError, match="Too many open files"):
        LogPump(1, os.geteuid(), lambda _: True)
    assert open_now() == before


@pytest.mark.parametrize("left", range(4))
async def test_channels_of_a_sandbox_are_both_there_or_none(left: int) -> None:
    before = open_now()
    with only(left), pytest.raises(OSError, match="Too many open files"):
        _sandbox()
    assert open_now() == before


async def test_an_event_that_waits_has_all_its_descriptors_or_none() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    peer = Peer(near)
    while peer.send(Output(1, b"x" * 10_000)):
        pass
    before = open_now()
    with only(2), pytest.raises(OSError, match="Too many open files"):
        peer.send(Finished(Outcome(Verdict.ok)), (0, 1, 2))
    assert open_now() == before
    peer.close()
    far.close()


async def test_an_installation_without_an_id_for_its_proxy_leaves_no_sandbox() -> None:
    destroyed = []

    class Prepared:
        async def destroy(self) -> None:
            destroyed.append(self)

    async def prepare(_: Limits) -> Any:
        return Prepared()

    absent = cast(Any, None)
    installing = InstallationRunner(
        Settings(), absent, b"", absent, versions={}, prepare=prepare, first_uid=1
    )
    installing._uids.clear()
    with pytest.raises(IndexError):
        await installing.run(Installation(lambda _: None), Installer.uv, -1)
    assert len(destroyed) == 1


class Listener(socket.socket):
    """A socket that cannot accept while descriptors are short."""

    short = False
    failed = 0

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.short:
            return super().accept()
        self.failed += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with Listener(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen(8)
        yield listening


def connect(listener: Listener) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(listener.getsockname())
    return client


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await _turns(1)


async def _turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_cannot_accept_waits_until_a_connection_ends(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 3600.0)
    serving = Server(listener, Access(frozenset({os.geteuid()})), cast(Any, None), 8)
    serving.start()
    with connect(listener) as first:
        await _until(lambda: len(serving._tasks) == 1)
        listener.short = True
        with connect(listener):
            await _until(lambda: listener.failed > 0)
            await _turns()
            assert listener.failed == 1
            listener.short = False
            first.close()
            await _until(lambda: not serving._tasks)
            await _until(lambda: len(serving._tasks) == 1)
    await serving.close()
    assert caplog.text.count("Too many open files") == 1


async def test_who_cannot_accept_tries_again_and_says_so_once(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.0)
    listener.short = True
    serving = Server(listener, Access(frozenset({os.geteuid()})), cast(Any, None), 8)
    serving.start()
    with connect(listener):
        await _until(lambda: listener.failed >= 5)
        listener.short = False
        await _until(lambda: len(serving._tasks) == 1)
    await serving.close()
    assert caplog.text.count("Too many open files") == 1


async def test_a_server_that_closes_while_it_waits_stays_closed(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.0)
    listener.short = True
    serving = Server(listener, Access(frozenset({os.geteuid()})), cast(Any, None), 8)
    serving.start()
    with connect(listener):
        await _until(lambda: serving._pause is not None)
        await serving.close()
        failed = listener.failed
        await _turns()
    assert listener.failed == failed
