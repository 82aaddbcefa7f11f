"""Programs in every language run, and see what they were given."""

import pytest

from support.executor import ExecutorProcess, RefusedError

HELLO = {
    "python3": "print('hello')",
    "bash": "echo hello",
    "sh": "echo hello",
    "node": "console.log('hello')",
    "perl": "print qq(hello\\n)",
}
REPORT = {
    "python3": (
        "import os, sys\n"
        "print(sys.argv[1:], os.environ['MINE'], sys.stdin.read(), os.getcwd(), __name__)\n"
        "print('warn', file=sys.stderr)\n"
        "sys.exit(7)",
        b"['a b', '*'] v\xc3\xa4lue given /work __main__\n",
    ),
    "bash": ('echo "$1|$2 $MINE $(cat) $PWD"; echo warn >&2; exit 7', b"a b|* v\xc3\xa4lue given /work\n"),
    "sh": ('echo "$1|$2 $MINE $(cat) $PWD"; echo warn >&2; exit 7', b"a b|* v\xc3\xa4lue given /work\n"),
    "node": (
        "const given = require('fs').readFileSync(0, 'utf8');"
        "console.log(process.argv.slice(2).join('|'), process.env.MINE, given, process.cwd());"
        "console.error('warn'); process.exit(7)",
        b"a b|* v\xc3\xa4lue given /work\n",
    ),
    "perl": (
        "print qq($ARGV[0]|$ARGV[1] $ENV{MINE} ), <STDIN>, qq( $ENV{PWD}\\n);"
        "print STDERR qq(warn\\n); exit 7",
        b"a b|* v\xc3\xa4lue given ",
    ),
}


@pytest.mark.parametrize("interpreter", HELLO)
def test_hello(executor: ExecutorProcess, interpreter: str) -> None:
    result = executor.run_job(HELLO[interpreter], "main", interpreter)
    assert result.ok() == b"hello\n"
    assert result.stderr == b""
    assert result.outcome.exit_code == 0


@pytest.mark.parametrize("interpreter", REPORT)
def test_arguments_environment_stdin_and_status(executor: ExecutorProcess, interpreter: str) -> None:
    program, expected = REPORT[interpreter]
    result = executor.run_job(
        program, "main", interpreter, args=["a b", "*"], env={"MINE": "välue"}, stdin=b"given"
    )
    assert result.stdout.startswith(expected)
    assert result.stderr == b"warn\n"
    assert (result.outcome.verdict, result.outcome.exit_code) == ("nonzero_exit", 7)


@pytest.mark.parametrize("interpreter", HELLO)
def test_all_interpreters_are_described(executor: ExecutorProcess, interpreter: str) -> None:
    description = executor.describe()
    versions = {entry.name: entry.version for entry in description.interpreters}
    assert interpreter in versions
    assert versions[interpreter] or interpreter == "sh"
    assert interpreter in description.environments[0].interpreters


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
