"""Which jobs get a prestarted interpreter, and which interpreters are started ahead."""

import asyncio
from typing import cast

import msgspec
import pytest

from sandrun_executor.environments import prestarted
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_sandbox.prestarted import node
from sandrun_shared import languages
from sandrun_shared.jobs import Limits
from sandrun_shared.protocol import Execute, Interpreter

pytestmark = pytest.mark.anyio
JOB = Execute("job", "node", Limits())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FakeSandbox:
    usable = True


async def prepared(_name: str) -> Sandbox:
    return cast("Sandbox", FakeSandbox())


@pytest.mark.parametrize(
    ("version", "kept"),
    [("20.20.2", True), ("18.19.0", True), ("16.0.0", False), ("", False), ("200.1", False)],
)
def test_only_versions_that_were_tried(version: str, kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    found = prestarted.usable(["node", "node"], {"node": Interpreter("node", version)})
    assert found == (["node", "node"] if kept else [])
    assert ("node is not started ahead" in caplog.text) is not kept


def test_one_that_is_not_installed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert prestarted.usable(["node"], {}) == []
    assert "node is not started ahead" in caplog.text


async def first(parks: prestarted.StartedParks) -> Sandbox:
    async with asyncio.timeout(10):
        while (found := parks.acquire(JOB)) is None:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0)
    return found


async def test_each_job_takes_one_of_its_own_kind_if_it_can() -> None:
    gone: list[Sandbox] = []
    parks = prestarted.StartedParks(["node", "node"], prepared, gone.append)
    assert parks.acquire(JOB) is None  # nothing waits yet
    parks.open()
    try:
        taken = [await first(parks), await first(parks)]
        assert taken[0] is not taken[1]
        assert gone == []
        for changes in (
            {"interpreter": "ruby"},
            {"warm": False},
            {"environment": "ml-basic"},
            {"limits": Limits(memory_bytes=prestarted.MEMORY_BYTES - 1)},
        ):
            assert parks.acquire(msgspec.structs.replace(JOB, **changes)) is None
    finally:
        await parks.close()


def test_what_is_kept_started_is_what_the_table_runs() -> None:
    assert set(node.COMMANDS) == set(prestarted.TRIED)
    for name, command in node.COMMANDS.items():
        assert command[0] == languages.BY_NAME[name].command[0]
        assert any(word.startswith(node.FOLDER) for word in command)
        assert languages.BY_NAME[name].read_at_start


@pytest.mark.parametrize(
    ("name", "variable", "alone"),
    [
        ("node", "NODE_ENV", True),
        ("node", "TZ", True),
        ("node", "MINE", False),
        ("ruby", "LANG", False),
        ("x", "y", False),
    ],
)
def test_variables_that_need_a_start(name: str, variable: str, alone: bool) -> None:
    assert languages.starts_alone(name, {"A": "1", variable: "2"}) is alone
