"""Public clients of Piston and Judge0 against the real service, as they are: only the address is another."""

import asyncio
from collections.abc import Iterator
from typing import Any

import judge0
import pytest
from judge0.clients import Client
from judge0.filesystem import File as ExtraFile
from judge0.filesystem import Filesystem
from judge0.retry import RegularPeriodRetry
from judge0.submission import Submission
from ultra_piston import File, PistonClient
from ultra_piston.errors import BadRequestError

from support.service import Service


class Adapted(Service):
    """A service that also speaks as Piston and as Judge0."""

    def __init__(self) -> None:
        super().__init__()
        self._environment["SANDRUN_API__ADAPTERS"] = "piston, judge0"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Adapted() as service:
        yield f"http://127.0.0.1:{service.port}"


@pytest.fixture(params=["/api/v2", "/api/v2/piston/"])
def piston(url: str, request: pytest.FixtureRequest) -> PistonClient:
    return PistonClient(base_url=url + request.param, rate_limit=0)


def test_piston(piston: PistonClient) -> None:
    runtimes = {runtime.language: runtime for runtime in piston.get_runtimes()}
    assert {"python", "javascript", "bash"} <= set(runtimes)
    assert {package.language for package in piston.get_packages()} >= {"python", "node"}
    version = runtimes["python"].version
    code = "import sys; print(input(), sys.argv[1:], flush=True); sys.exit('bad')"
    output = piston.post_execute("py", version, File(name="a.py", content=code), stdin="in", args=["x", "y"])
    assert (output.language, output.version) == ("python", version)
    assert (output.run.stdout, output.run.stderr, output.run.code) == ("in ['x', 'y']\n", "bad\n", 1)
    assert output.run.output == "in ['x', 'y']\nbad\n"
    with pytest.raises(BadRequestError):
        piston.post_execute("py", "0.0.1", File(content=""))


@pytest.mark.parametrize(
    ("language", "code"),
    [("js", "console.log(process.argv[2])"), ("bash", "echo $1"), ("perl", "print $ARGV[0], qq(\\n)")],
)
def test_piston_languages(url: str, language: str, code: str) -> None:
    client = PistonClient(base_url=f"{url}/api/v2", rate_limit=0)
    output = asyncio.run(client.post_execute_async(language, "*", File(content=code), args=["é"]))
    assert (output.run.stdout, output.run.code) == ("é\n", 0), output


PRINTS = "#include <stdio.h>\nint main(int c, char **v) { fputs(v[1], stdout); return 0; }\n"
NO_PROGRAM = "int main( { return 0; }"
LOOPS = "int main(void) { for (;;) ; }"


def test_piston_compilers(url: str) -> None:
    client = PistonClient(base_url=f"{url}/api/v2", rate_limit=0)
    for language in ("c", "c++"):
        output = client.post_execute(language, "*", File(content=PRINTS), args=["a b"])
        assert (output.run.stdout, output.run.code, output.compile.code) == ("a b", 0, 0), output
    output = client.post_execute("c", "*", File(content=NO_PROGRAM))
    assert (output.compile.code, output.run.code) == (1, 1)
    assert "error" in output.compile.stderr
    output = client.post_execute("c", "*", File(content=LOOPS), run_timeout=200, compile_timeout=800)
    assert (output.run.code, output.run.signal) == (None, "SIGKILL")


def test_judge0_compilers(client: Client) -> None:
    c, cpp = judge0.LanguageAlias.C, judge0.LanguageAlias.CPP
    for language in (c, cpp):
        done = run(client, PRINTS, language=language, command_line_arguments="'a b'", expected_output="a b")
        assert (done.status, done.compile_output) == (judge0.Status.ACCEPTED, None), done
    done = run(client, NO_PROGRAM, language=c)
    assert done.status is judge0.Status.COMPILATION_ERROR
    assert "error" in done.compile_output
    assert (done.stdout, done.stderr) == (None, None)
    slow = "#include <unistd.h>\nint main(void) { usleep(300000); return 0; }"
    assert run(client, slow, language=c, wall_time_limit=0.2).status is judge0.Status.TIME_LIMIT_EXCEEDED
    assert run(client, slow, language=c).status is judge0.Status.ACCEPTED


def test_piston_limits(url: str) -> None:
    client = PistonClient(base_url=f"{url}/api/v2", rate_limit=0)
    late = client.post_execute("py", "3.x", File(content="while True: pass"), run_timeout=300)
    assert (late.run.code, late.run.signal) == (None, "SIGKILL")
    greedy = "x = bytearray(1 << 28)\nfor i in range(0, len(x), 4096): x[i] = 1"
    large = client.post_execute("py", "3.x", File(content=greedy), run_memory_limit=64 << 20)
    assert (large.run.code, large.run.signal) == (None, "SIGKILL")


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, retry_strategy=RegularPeriodRetry(0.05))


def run(client: Client, code: str, **options: Any) -> Submission:
    return judge0.run(client=client, source_code=code, **{"language": judge0.LanguageAlias.PYTHON, **options})


def test_judge0(client: Client) -> None:
    assert client.version == "1.13.1"
    assert client.get_language(71).name.startswith("Python (3.")
    assert client.config.enable_batched_submissions
    assert len(client.get_statuses()) == 14
    done = run(client, "print('héllo', input())", stdin="in\n", expected_output="héllo in")
    assert done.status is judge0.Status.ACCEPTED
    assert (done.stdout, done.stderr, done.exit_code) == ("héllo in\n", None, 0)
    assert done.source_code == "print('héllo', input())"
    assert done.memory > 0
    assert done.finished_at >= done.created_at
    assert run(client, "print(1)", expected_output="2").status is judge0.Status.WRONG_ANSWER


def test_judge0_test_cases_and_batches(client: Client) -> None:
    cases = [judge0.TestCase("1", "2"), judge0.TestCase("2", "4"), judge0.TestCase("3", "5")]
    done: Any = run(client, "print(2 * int(input()))", test_cases=cases)
    accepted, wrong = judge0.Status.ACCEPTED, judge0.Status.WRONG_ANSWER
    assert [submission.status for submission in done] == [accepted, accepted, wrong]


@pytest.mark.parametrize(
    ("language", "code"),
    [
        (judge0.LanguageAlias.JAVASCRIPT, "console.log(process.argv[2])"),
        (judge0.LanguageAlias.BASH, "echo $1"),
        (judge0.LanguageAlias.PERL, "print $ARGV[0], qq(\\n)"),
    ],
)
def test_judge0_languages(client: Client, language: judge0.LanguageAlias, code: str) -> None:
    done = run(client, code, language=language, command_line_arguments="'a b'")
    assert (done.stdout, done.status) == ("a b\n", judge0.Status.ACCEPTED)


@pytest.mark.parametrize(
    ("code", "options", "status"),
    [
        ("raise SystemExit(3)", {}, judge0.Status.RUNTIME_ERROR_NZEC),
        ("import os; os.abort()", {}, judge0.Status.RUNTIME_ERROR_SIGABRT),
        ("while True: pass", {"cpu_time_limit": 0.2}, judge0.Status.TIME_LIMIT_EXCEEDED),
        ("input()", {"stdin": None}, judge0.Status.RUNTIME_ERROR_NZEC),
        (
            "import signal; signal.pause()",
            {"wall_time_limit": 0.3},
            judge0.Status.TIME_LIMIT_EXCEEDED,
        ),
        ("x = b'1' * (1 << 28)", {"memory_limit": 65536}, judge0.Status.RUNTIME_ERROR_OTHER),
    ],
)
def test_judge0_statuses(client: Client, code: str, options: dict[str, Any], status: judge0.Status) -> None:
    assert run(client, code, **options).status is status


def test_judge0_files(client: Client) -> None:
    files = Filesystem(content=[ExtraFile(name="data/a.txt", content="inside")])
    done = run(client, "print(open('data/a.txt').read())", additional_files=files)
    assert done.stdout == "inside\n"
    project = Filesystem(
        content=[
            ExtraFile(name="run", content="python3 program.py"),
            ExtraFile(name="program.py", content="print('many')"),
        ]
    )
    done = run(client, "", language=judge0.LanguageAlias.MULTI_FILE, additional_files=project)
    assert done.stdout == "many\n", done
