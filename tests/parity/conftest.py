"""Programs run on a real executor and in a bare root, which the tests share."""

from collections.abc import Iterator

import pytest

from parity.bare import BareRoot
from support import machine
from support.executor import ExecutorProcess
from support.fixtures import _root, executor

__all__ = ["_root", "executor"]


@pytest.fixture(scope="session")
def bare(_root: None) -> Iterator[BareRoot]:
    """Where programs run without a sandbox."""
    with BareRoot() as made:
        yield made


@pytest.fixture(scope="session", autouse=True)
def _nothing_left(executor: ExecutorProcess) -> Iterator[None]:
    """Compare the machine after all the programs with before them."""
    before, shared = machine.settled(executor), machine.shared_memory()
    yield
    machine.assert_unchanged(executor, before, shared)
    assert b"Traceback" not in executor.log.read_bytes()
