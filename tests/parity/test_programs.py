"""A program runs warm, cold and bare with the same output, errors and exit status, byte by byte."""

import pytest

from parity import differences, programs
from parity.bare import BareRoot, Ended
from support.executor import ExecutorProcess

KINDS = {"warm": (True, None), "cold": (False, None), "buffered": (True, True)}


@pytest.mark.parametrize("name", programs.NAMES)
def test_a_program_cannot_tell(executor: ExecutorProcess, bare: BareRoot, name: str) -> None:
    files, entrypoint = programs.files(name), programs.entrypoint(name)
    stdin = programs.STDIN.get(name)
    outside = {
        buffered: bare.run(files, entrypoint, args=programs.ARGUMENTS, stdin=stdin, buffered=bool(buffered))
        for buffered in (None, True)
    }
    found = {}
    for kind, (warm, buffered) in KINDS.items():
        result = executor.run_job(
            files, entrypoint, args=programs.ARGUMENTS, stdin=stdin, warm=warm, buffered=buffered
        )
        inside = Ended(result.stdout, result.stderr, result.outcome.exit_code)
        if inside != outside[buffered]:
            found[kind] = inside
    listed = differences.of_program(name)
    for kind in found.keys() - listed.kinds:
        assert found[kind] == outside[KINDS[kind][1]], kind
    assert set(found) == listed.kinds, f"no longer different: {listed.kinds - found.keys()}: {listed.reason}"


def test_each_listed_difference_is_of_a_program_there_is() -> None:
    assert differences.programs() <= set(programs.NAMES)
