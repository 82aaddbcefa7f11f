"""Every example of docs/examples against the real service."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.service import Service

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
COMMANDS = {
    "run.sh": ["/bin/bash", str(EXAMPLES / "run.sh")],
    "run.py": [sys.executable, str(EXAMPLES / "run.py")],
    "run.mjs": ["/usr/bin/node", str(EXAMPLES / "run.mjs")],
}
SAYS = {
    "run.sh": """\
== Code in, text out; the exit code is in a header
hi
== The same in another language, with arguments and limits, as JSON
[ 'a', 'b c' ]
verdict: ok
== A folder: pack it, submit it, wait for it, see what it printed
summed 3 numbers
== The files it left, as one archive; then the job is deleted
6
== A program that fails is an answer, not an error
{"verdict":"nonzero_exit","exit_code":3}
""",
    "run.py": """\
200 numbers
plot.svg True
[('plot.svg', 'image/svg+xml')]
nonzero_exit 1 no
cpu_time_limit
The interpreter 'cobol' is not installed here
0
1
2
ok
""",
    "run.mjs": """\
42 ok 0
stdout 1
stdout 2
stdout 3
finished ok
out.txt SOME WORDS
TimeoutError
""",
}


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """What a user's shell has: the server's address."""
    with Service() as service:
        yield {
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "SANDRUN_URL": f"http://127.0.0.1:{service.port}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def run(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, env=environment, cwd=folder, capture_output=True, text=True, timeout=100
    )


def test_every_example_is_run_and_listed() -> None:
    files = {path.name for path in EXAMPLES.iterdir()}
    assert files == {"README.md", "agent.py", "github-actions.yml", *COMMANDS}
    page = (EXAMPLES / "README.md").read_text()
    assert [name for name in sorted(files - {"README.md"}) if f"({name})" not in page] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_example(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    done = run(COMMANDS[name], environment, tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (SAYS[name], "", 0)
    assert list(tmp_path.iterdir()) == []


PASSES = "#!/bin/bash\nmkdir report; echo 4 of 4 >report/tests.txt; echo passed; test -f README && test ! -e .git\n"
FAILS = "echo out; echo failed >&2; exit 1\n"


@pytest.mark.parametrize(
    ("script", "status", "says"),
    [(PASSES, [0, 0, 0], "ok, exit code 0\n"), (FAILS, [0, 0, 1], "nonzero_exit, exit code 1\n")],
)
def test_github_actions(
    script: str, status: list[int], says: str, environment: dict[str, str], tmp_path: Path
) -> None:
    checkout, temporary = tmp_path / "checkout", tmp_path / "temporary"
    for folder in (checkout / "tests", checkout / ".git", temporary):
        folder.mkdir(parents=True)
    (checkout / "README").touch()
    (checkout / "tests" / "run.sh").write_text(script)
    job = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())["jobs"]["tests"]
    assert set(job["env"]) == {"SANDRUN_URL"}
    summary = tmp_path / "summary"
    runner = {**environment, "RUNNER_TEMP": str(temporary), "GITHUB_STEP_SUMMARY": str(summary)}
    steps = [step["run"] for step in job["steps"] if "run" in step]
    assert not re.search(r"\$\{\{", "".join(steps))  # nothing that only GitHub would fill in
    done = [run(["/bin/bash", "-e", "-c", step], runner, checkout) for step in steps]
    assert [step.returncode for step in done] == status, [step.stderr for step in done]
    assert done[0].stdout in ("passed\n", "out\nfailed\n")
    assert done[-1].stdout == summary.read_text() == says
    if status[-1] == 0:
        assert (temporary / "report" / "tests.txt").read_text() == "4 of 4\n"


class Model(http.server.BaseHTTPRequestHandler):
    """A language model with two ideas: count primes wrongly, then rightly; then it says what it read."""

    heard: list[dict[str, Any]]
    calls = (
        "not JSON",
        json.dumps({"code": "print(undefined)"}),
        json.dumps({"code": "print([n for n in range(2, 50) if all(n % d for d in range(2, n))][-1])"}),
    )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.heard.append({"path": self.path, "key": self.headers["Authorization"], **body})
        turn = len(self.heard) - 1
        message: dict[str, Any] = {"role": "assistant", "content": None}
        if turn < len(self.calls):
            function = {"name": "run_python", "arguments": self.calls[turn]}
            message["tool_calls"] = [{"id": f"call_{turn}", "type": "function", "function": function}]
        else:
            message["content"] = f"It is {body['messages'][-1]['content'].split()[0]}."
        answer = json.dumps({"choices": [{"message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def model() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of the model, and what it heard."""
    heard: list[dict[str, Any]] = []
    handler = type("Heard", (Model,), {"heard": heard})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", heard
        finally:
            server.shutdown()
            thread.join()


def test_agent(environment: dict[str, str], model: tuple[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    url, heard = model
    asked = {**environment, "LLM_BASE_URL": url, "LLM_MODEL": "two-ideas", "LLM_API_KEY": "secret"}
    done = run(
        [sys.executable, str(EXAMPLES / "agent.py"), "Largest", "prime", "below", "50?"], asked, tmp_path
    )
    assert (done.stdout, done.returncode) == ("It is 47.\n", 0), done.stderr
    assert {(turn["path"], turn["key"], turn["model"]) for turn in heard} == {
        ("/v1/chat/completions", "Bearer secret", "two-ideas")
    }
    assert heard[0]["messages"][1] == {"role": "user", "content": "Largest prime below 50?"}
    tools = [message["content"] for message in heard[-1]["messages"] if message["role"] == "tool"]
    assert tools[0].startswith("Error: the arguments")
    assert "NameError" in tools[1]
    assert tools[1].endswith("[nonzero_exit, exit code 1]")
    assert tools[2] == "47\n\n[ok, exit code 0]"


def test_agent_says_when_the_sandbox_is_away(
    environment: dict[str, str], model: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    url, heard = model
    asked = {**environment, "LLM_BASE_URL": url, "SANDRUN_URL": "ftp://nowhere"}
    done = run([sys.executable, str(EXAMPLES / "agent.py"), "?"], asked, tmp_path)
    assert done.returncode != 0
    assert heard == []
    assert os.listdir(tmp_path) == []
