"""Nothing that a job tries gets it out; and each attempt does get out when the layer against it is off."""

from collections.abc import Iterator

import pytest

from sandrun_shared.jobs import Limits
from support.executor import ExecutorProcess
from support.probes import PRELUDE, PROBES

LIMITS = Limits(wall_seconds=10.0, memory_bytes=128 << 20)


def attempt(executor: ExecutorProcess, program: str, *args: str, warm: bool = True) -> str:
    """ESCAPED or CONTAINED, and on what grounds."""
    result = executor.run_job(PRELUDE + program, "probe.py", args=args, limits=LIMITS, warm=warm)
    said = result.stdout.decode().strip()
    assert said.startswith(("ESCAPED", "CONTAINED")), (result.outcome, result.stderr.decode()[-2000:])
    return said


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
