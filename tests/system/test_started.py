"""A prestarted interpreter behaves like a plain start, and holds nothing of another job."""

from collections.abc import Iterator

import msgspec
import pytest

from support.executor import PATIENT, ExecutorProcess, Result
from support.started import NODE, NODE_MODULES, run_started, waiting

BOOTSTRAP = "/etc/sandrun/node.cjs"


@pytest.fixture(scope="module")
def starting() -> Iterator[ExecutorProcess]:
    """An executor that keeps node started."""
    with ExecutorProcess(started_interpreters="node") as running:
        yield running


def seen(result: Result) -> tuple[object, ...]:
    outcome = result.outcome
    return outcome.verdict, outcome.exit_code, outcome.signal, result.stdout, result.stderr, result.outputs


def compare(executor: ExecutorProcess, files: dict[str, bytes], entrypoint: str, **options: object) -> Result:
    """Run both ways; what a plain start and a started one gave must be the same."""
    job = (files, entrypoint, "node")
    started = run_started(executor, BOOTSTRAP, *job, limits=PATIENT, **options)
    plain = executor.run_job(*job, limits=PATIENT, warm=False, **options)
    assert seen(started) == seen(plain)
    return started


@pytest.mark.parametrize("name", NODE)
def test_node_programs(starting: ExecutorProcess, name: str) -> None:
    options = {"stdin": "gïven".encode()} if "stdin" in name else {}
    args = [] if name == "a fork" else ["a b", "--välue", ""]
    env = {"HOME": "/tmp", "MINE": "a=b"}
    compare(starting, {"src/main.js": NODE[name].encode()}, "src/main.js", args=args, env=env, **options)


@pytest.mark.parametrize("name", NODE_MODULES)
def test_node_modules(starting: ExecutorProcess, name: str) -> None:
    files = {"main.mjs": NODE_MODULES[name].encode(), "other.mjs": b"export const value = 4"}
    compare(starting, files, "main.mjs")


def test_entrypoints_of_all_kinds(starting: ExecutorProcess) -> None:
    files = dict.fromkeys(("main", "-e.js", "a/b.js"), b"console.log(__filename, process.argv)")
    files["package.json"] = b'{"type": "commonjs"}'
    for entrypoint in ("-e.js", "a", "none.js"):
        compare(starting, files, entrypoint)


def test_outputs_and_limits_are_the_jobs(starting: ExecutorProcess) -> None:
    limits = msgspec.structs.replace(PATIENT, memory_bytes=160 << 20, disk_bytes=2 << 20, open_files=50)
    program = "const fs = require('fs'); fs.writeFileSync('kept', 'yes'); fs.writeFileSync('/tmp/big', 'x'.repeat(4 << 20))"
    result = run_started(starting, BOOTSTRAP, program, "main.js", "node", limits=limits)
    assert (result.outcome.verdict, result.outputs) == ("disk_limit", {"kept": b"yes"})
    for program, verdict, more in (
        ("const kept = []; for (;;) kept.push(Buffer.alloc(1 << 20, 1))", "memory_limit", {}),
        ("for (;;);", "wall_time_limit", {"wall_seconds": 0.5}),
        ("for (;;);", "cpu_time_limit", {"cpu_seconds": 1.0}),
    ):
        less = msgspec.structs.replace(limits, **more)
        result = run_started(starting, BOOTSTRAP, program, "main.js", "node", limits=less)
        assert result.outcome.verdict == verdict


def test_a_bad_upload_is_told(starting: ExecutorProcess) -> None:
    result = run_started(starting, BOOTSTRAP, {"../x": b""}, "main.js", "node")
    assert (result.outcome.verdict, result.outcome.exit_code) == ("setup_error", None)
    assert b"leaves the work directory" in result.stderr


def test_what_needs_a_start_of_its_own_gets_one(starting: ExecutorProcess) -> None:
    run_started(starting, BOOTSTRAP, "0", "main.js", "node")
    small = msgspec.structs.replace(PATIENT, memory_bytes=96 << 20)
    for options in ({"warm": False}, {"limits": small}):
        before = waiting(starting, BOOTSTRAP)
        told = starting.run_job("console.log('own')", "main.js", "node", **options)
        assert told.ok() == b"own\n"
        assert before <= waiting(starting, BOOTSTRAP)


def test_each_is_used_once(starting: ExecutorProcess) -> None:
    program = "globalThis.left = 1; console.log(process.pid, Math.random()); require('fs').writeFileSync('/tmp/left', '')"
    again = "console.log(globalThis.left, require('fs').readdirSync('/tmp'), Math.random())"
    first = run_started(starting, BOOTSTRAP, program, "main.js", "node").ok()
    second = run_started(starting, BOOTSTRAP, again, "main.js", "node").ok()
    assert second.startswith(b"undefined [] ")
    assert first.split()[1] != second.split()[2]
