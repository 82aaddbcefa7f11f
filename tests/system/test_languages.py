"""Programs in every language run, get their input, and meet every limit."""

import msgspec
import pytest

from sandrun_shared.jobs import Limits
from support.executor import PATIENT, ExecutorProcess, RefusedError
from support.languages import FLOOD_BYTES, HELLO, PROGRAMS, installed

SMALL = msgspec.structs.replace(PATIENT, memory_bytes=96 << 20, disk_bytes=4 << 20, log_bytes=1 << 20)


def run_all(executor: ExecutorProcess, what: str, limits: Limits) -> dict[str, object]:
    """The same kind of program in every language at once; its outcomes by language."""
    jobs = {
        name: executor.start_job(getattr(programs, what), programs.main, name, limits=limits)
        for name, programs in PROGRAMS.items()
    }
    return {name: job.wait().outcome for name, job in jobs.items()}


@pytest.mark.parametrize("name", installed(HELLO))
def test_hello(executor: ExecutorProcess, name: str) -> None:
    versions = {entry.name: entry.version for entry in executor.describe().interpreters}
    program, entrypoint = HELLO[name]
    result = executor.run_job(program, entrypoint, name, limits=PATIENT)
    assert result.ok() == b"hello\n"
    assert result.stderr == b""
    assert result.outcome.exit_code == 0
    assert result.outputs == {}
    assert versions[name][0].isdigit()
    assert name in executor.describe().environments[0].interpreters


@pytest.mark.parametrize("name", PROGRAMS)
def test_arguments_environment_stdin_and_status(executor: ExecutorProcess, name: str) -> None:
    programs = PROGRAMS[name]
    result = executor.run_job(
        programs.report, programs.main, name, args=["a b*", "--help"], env={"MINE": "välue"}, stdin=b"given"
    )
    assert (result.stdout.decode(), result.stderr) == ("a b*|välue|given\n", b"warn\n")
    assert (result.outcome.verdict, result.outcome.exit_code) == ("nonzero_exit", 7)


@pytest.mark.parametrize("name", PROGRAMS)
def test_files_and_an_error_that_nobody_catches(executor: ExecutorProcess, name: str) -> None:
    programs = PROGRAMS[name]
    files = {programs.main: programs.files.encode(), "data.txt": b"given\n"}
    assert executor.run_job(files, programs.main, name).outputs == {"out.txt": b"GIVEN\n"}
    result = executor.run_job(programs.error, programs.main, name)
    assert result.outcome.verdict == ("signaled" if name == "c" else "nonzero_exit")
    assert result.outcome.exit_code not in (0, None)
    assert b"zebra" in result.stderr


def test_64_mb_of_output(executor: ExecutorProcess) -> None:
    # Ruby and R take as much memory as their collector pleases.
    limits = msgspec.structs.replace(SMALL, memory_bytes=PATIENT.memory_bytes)
    for name, outcome in run_all(executor, "flood", limits).items():
        assert (outcome.verdict, outcome.stdout_bytes, outcome.logs_truncated) == ("ok", FLOOD_BYTES, True), (
            name
        )


@pytest.mark.parametrize(
    ("what", "verdict", "limits"),
    [
        ("sleep", "wall_time_limit", msgspec.structs.replace(SMALL, wall_seconds=4.0)),
        ("spin", "cpu_time_limit", msgspec.structs.replace(SMALL, cpu_seconds=0.2)),
        ("memory", "memory_limit", SMALL),
        ("disk", "disk_limit", SMALL),
    ],
)
def test_every_limit_ends_every_language(
    executor: ExecutorProcess, what: str, verdict: str, limits: Limits
) -> None:
    verdicts = {name: outcome.verdict for name, outcome in run_all(executor, what, limits).items()}
    assert verdicts == dict.fromkeys(PROGRAMS, verdict)


def test_an_unknown_interpreter_is_refused(executor: ExecutorProcess) -> None:
    with pytest.raises(RefusedError, match="cobol is not installed"):
        executor.run_job("x", "main", "cobol")


@pytest.mark.parametrize("warm", [True, False])
def test_a_traceback_names_the_program_only(executor: ExecutorProcess, warm: bool) -> None:
    program = "def f():\n    raise ValueError('täst')\nf()\n"
    result = executor.run_job(program, "main.py", warm=warm)
    assert (result.outcome.verdict, result.outcome.exit_code) == ("nonzero_exit", 1)
    text = result.stderr.decode()
    assert text.startswith('Traceback (most recent call last):\n  File "')
    assert text.rstrip().endswith("ValueError: täst")
    assert text.count("File ") == 2
    assert "sandrun" not in text


def test_a_syntax_error_is_the_programs(executor: ExecutorProcess) -> None:
    result = executor.run_job("def f(:\n", "main.py")
    assert (result.outcome.verdict, result.outcome.exit_code) == ("nonzero_exit", 1)
    assert b"SyntaxError" in result.stderr
    assert b"sandrun" not in result.stderr


@pytest.mark.parametrize("number", [6, 9, 11, 15])
@pytest.mark.parametrize("warm", [True, False])
def test_a_signal_is_told(executor: ExecutorProcess, number: int, warm: bool) -> None:
    result = executor.run_job(f"import os; os.kill(os.getpid(), {number})", warm=warm)
    assert (result.outcome.verdict, result.outcome.signal) == ("signaled", number)
    assert result.outcome.exit_code == 128 + number


def test_a_signal_of_a_shells_child_is_an_exit_code(executor: ExecutorProcess) -> None:
    result = executor.run_job("bash -c 'kill -SEGV $$'", "main", "bash")
    assert (result.outcome.verdict, result.outcome.signal) == ("nonzero_exit", None)
    assert result.outcome.exit_code == 139


def test_stdin_is_at_its_end_unless_given(executor: ExecutorProcess) -> None:
    assert executor.run_job("import sys; print(repr(sys.stdin.read()))").ok() == b"''\n"


@pytest.mark.parametrize("warm", [True, False])
def test_bytes_arrive_as_they_were_printed(executor: ExecutorProcess, warm: bool) -> None:
    data = bytes(range(256)) * 700
    program = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert executor.run_job(program, stdin=data, warm=warm).ok() == data


def test_warm_and_cold_python_look_alike(executor: ExecutorProcess) -> None:
    program = (
        "import sys, os\n"
        "print(sys.argv, sys.orig_argv[1:], sys.path, __file__, sys.flags, sys.stdout.encoding)\n"
        "print(sorted(os.environ.items()), os.getcwd(), sys.executable, sys.prefix)\n"
        "print(open('/proc/self/cmdline').read().split(chr(0))[1:3])\n"
    )
    warm, cold = (
        executor.run_job(program, "main.py", args=["x"], warm=warm).ok().splitlines()
        for warm in (True, False)
    )
    assert warm == cold


def test_modules_beside_the_entrypoint_are_found(executor: ExecutorProcess) -> None:
    files = {"src/main.py": b"import helper; print(helper.VALUE)", "src/helper.py": b"VALUE = 42"}
    assert executor.run_job(files, "src/main.py").ok() == b"42\n"
