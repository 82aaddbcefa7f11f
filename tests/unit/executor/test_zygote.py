"""A zygote that does not end does not block its callers."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import cast

import pytest

from sandrun_executor.cgroups.probe import Cgroup
from sandrun_executor.sandboxes import zygote as zygotes
from sandrun_executor.sandboxes.channel import Link
from sandrun_executor.sandboxes.slots import Slot
from sandrun_executor.sandboxes.zygote import Zygote, ZygoteError
from sandrun_sandbox.messages import Spawn, TmpfsLimits

pytestmark = pytest.mark.anyio


class Immortal(subprocess.Popen[bytes]):
    """A process in state D, as seen from outside: SIGKILL changes nothing."""

    mortal = False

    def kill(self) -> None:
        if self.mortal:
            super().kill()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def process() -> Iterator[Immortal]:
    with Immortal([sys.executable, "-c", "import os; os.read(0, 1)"], stdin=subprocess.PIPE) as waiting:
        yield waiting
        waiting.returncode = None
        waiting.mortal = True
        waiting.kill()


def zygote_of(process: Immortal) -> Zygote:
    return Zygote(process, Link(), cast(Cgroup, None))


async def test_one_that_dies_is_reaped(process: Immortal) -> None:
    process.mortal = True
    zygote = zygote_of(process)
    zygote.stop()
    zygote.stop()
    async with asyncio.timeout(20):
        await zygote.ended()
    assert process.returncode == -9


async def test_one_that_does_not_die_is_given_up(
    process: Immortal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(zygotes, "STOP_SECONDS", 0.01)
    zygote = zygote_of(process)
    zygote.stop()  # and the loop goes on, or nothing below would be reached
    async with asyncio.timeout(20):
        await zygote.ended()
    assert f"zygote {process.pid} does not die" in caplog.text
    assert not zygote.alive


async def test_one_that_reads_nothing_is_known_not_to_answer(process: Immortal) -> None:
    process.mortal = True
    zygote = zygote_of(process)

    class FakeSlot:
        uid = 1000
        cgroup = type("Group", (), {"join_fds": (), "into_fd": None})
        network = type("Net", (), {"fd": 0})

    request = Spawn(1000, False, TmpfsLimits(1, 1, 1), None, False)

    def fill_the_socket() -> None:
        while True:
            links = [Link(), Link()]
            try:
                zygote.spawn(*links, cast(Slot, FakeSlot), request)
            finally:
                for link in links:
                    link.close()

    with pytest.raises(ZygoteError, match="does not answer"):
        fill_the_socket()
    assert zygote.alive
    assert not zygote.answers
    zygote.stop()
    await zygote.ended()
