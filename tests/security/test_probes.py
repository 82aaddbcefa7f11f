"""No probe escapes the sandbox, and each escapes when the layer against it is off."""

import pytest

from support.attempts import attempt
from support.executor import ExecutorProcess
from support.probes import PROBES, WITHOUT


@pytest.mark.parametrize("name", PROBES)
def test_contained(executor: ExecutorProcess, name: str) -> None:
    assert attempt(executor, PROBES[name].program).startswith("CONTAINED")


@pytest.mark.parametrize(
    "name", ["descriptors", "capability_sets", "seccomp_mode", "user_id", "first_process"]
)
def test_contained_when_executed_anew(executor: ExecutorProcess, name: str) -> None:
    assert attempt(executor, PROBES[name].program, warm=False).startswith("CONTAINED")


@pytest.mark.parametrize("layers", WITHOUT, ids="+".join)
def test_escapes_without_its_layers_only(executor: ExecutorProcess, layers: tuple[str, ...]) -> None:
    expected = WITHOUT[layers]
    with ExecutorProcess(without=layers, parked=1) as weakened:
        found = {name: attempt(weakened, PROBES[name].program) for name in expected}
    assert {name: said.split()[0] for name, said in found.items()} == expected, found


def test_every_probe_is_seen_to_escape() -> None:
    seen = {name for expected in WITHOUT.values() for name, said in expected.items() if said == "ESCAPED"}
    assert seen == PROBES.keys()
