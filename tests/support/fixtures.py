"""Fixtures of the tests that need root and a kernel that can sandbox."""

import os
from collections.abc import Iterator

import pytest

from support import machine
from support.executor import ExecutorProcess


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        if os.environ.get("SANDRUN_SYSTEM_MUST_WORK") == "1":
            pytest.fail("these tests need root")
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def executor(_root: None) -> Iterator[ExecutorProcess]:
    """The executor that most tests share."""
    with ExecutorProcess() as running:
        # The first job of each kind loads what stays loaded.
        running.run_job("print(1)")
        yield running


@pytest.fixture(autouse=True)
def leftovers(executor: ExecutorProcess) -> Iterator[None]:
    """Compare the machine after each test with before it."""
    before = machine.settled(executor)
    shared = machine.shared_memory()
    told = executor.log.stat().st_size
    yield
    machine.assert_unchanged(executor, before, shared)
    assert b"Traceback" not in executor.log.read_bytes()[told:], executor.log.read_text()[told:]
