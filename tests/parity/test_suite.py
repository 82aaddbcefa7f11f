"""Quick modules of CPython's own tests end inside as outside; run.py runs the others."""

from pathlib import Path

import pytest

from parity import differences, suite
from parity.bare import BareRoot
from support.executor import ExecutorProcess


@pytest.mark.parametrize("module", suite.QUICK)
def test_a_module_ends_inside_as_outside(executor: ExecutorProcess, bare: BareRoot, module: str) -> None:
    assert list(Path("/usr/lib").glob("python3.*/test/test_atexit.py")), "run deploy/setup.sh --dev"
    outside, inside = suite.run(module, executor, bare)
    assert "ok" in outside.outcomes.values(), outside.words
    assert suite.compare(outside, inside, module) == []


def test_each_listed_difference_is_of_a_module_that_is_run() -> None:
    assert differences.modules() <= set(suite.MODULES)
    assert len(set(suite.MODULES)) == len(suite.MODULES) >= 40
