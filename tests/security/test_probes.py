"""Nothing that a job tries gets it out; and each attempt does get out when the layer against it is off."""

from collections.abc import Iterator

import pytest

from support.attempts import attempt
from support.executor import ExecutorProcess
from support.probes import PROBES


@pytest.mark.parametrize("name", PROBES)
def test_contained(executor: ExecutorProcess, name: str) -> None:
    assert attempt(executor, PROBES[name].program).startswith("CONTAINED")


@pytest.mark.parametrize(
    "name", ["descriptors", "capability_sets", "seccomp_mode", "user_id", "first_process"]
)
def test_contained_when_executed_anew(executor: ExecutorProcess, name: str) -> None:
    assert attempt(executor, PROBES[name].program, warm=False).startswith("CONTAINED")


@pytest.fixture(scope="module")
def weakened(request: pytest.FixtureRequest, executor: ExecutorProcess) -> Iterator[ExecutorProcess]:
    """An executor without the layers of the parameter, shared by the probes that name the same ones."""
    with ExecutorProcess(without=request.param, parked=1) as running:
        yield running


_PAIRS = sorted((probe.without, name) for name, probe in PROBES.items())


@pytest.mark.parametrize(
    ("weakened", "name"), _PAIRS, indirect=["weakened"], ids=[f"{name}-{'+'.join(w)}" for w, name in _PAIRS]
)
def test_escapes_without_the_layer(weakened: ExecutorProcess, name: str) -> None:
    assert attempt(weakened, PROBES[name].program).startswith("ESCAPED")
