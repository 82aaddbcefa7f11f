"""Every example of docs/examples against the real service."""

import base64
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sandrun_api.jobs import manifest as manifests
from sandrun_shared.settings import JobLimits
from support import browser as browsers
from support.docs import program
from support.service import Service

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
DOCS = EXAMPLES.parent
# Run by their own tests below.
TUTORIAL = {"make_data.py", "summarise.py", "one.py", "one.sh", "batch.py", "batch.sh", "verify.sh"}
ASKED = {"with_requests.py", "poll.sh", "fetch.html", "streamlit_snippet.py"}
COMMANDS = {
    "first.sh": ["/bin/bash", str(EXAMPLES / "first.sh")],
    "run.sh": ["/bin/bash", str(EXAMPLES / "run.sh")],
    "run.py": [sys.executable, str(EXAMPLES / "run.py")],
    "run.mjs": ["/usr/bin/node", str(EXAMPLES / "run.mjs")],
}
SAYS = {
    "first.sh": "completed\nhello\n42\n",
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
        yield shell(service)


def shell(service: Service) -> dict[str, str]:
    """The variables of a user of that server."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "SANDRUN_URL": f"http://127.0.0.1:{service.port}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, env=environment, cwd=folder, capture_output=True, text=True, timeout=100
    )


def test_every_example_is_run_and_listed() -> None:
    files = {
        str(path.relative_to(EXAMPLES))
        for path in EXAMPLES.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    elsewhere = {"README.md", "agent.py", "github-actions.yml"}
    elsewhere |= {f"tutorial/{name}" for name in TUTORIAL} | {f"asked/{name}" for name in ASKED}
    assert files == {*elsewhere, *COMMANDS}
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


BLOCK = re.compile(r"^```(?:python|bash|html)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FROM_FILE = re.compile(r"<!-- file: (\S+) -->\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_tutorial_shows_its_programs_as_they_are() -> None:
    shown = BLOCK.findall((DOCS / "tutorial.md").read_text())
    programs = {(EXAMPLES / "tutorial" / name).read_text() for name in TUTORIAL - {"make_data.py"}}
    assert set(shown) == programs


@pytest.mark.parametrize("page", ["faq.md", "getting-started.md"])
def test_a_page_shows_its_files_as_they_are(page: str) -> None:
    shown = dict(FROM_FILE.findall((DOCS / page).read_text()))
    wanted = {f"examples/asked/{name}" for name in ASKED} if page == "faq.md" else {"examples/first.sh"}
    assert set(shown) == wanted
    assert {path: (DOCS / path).read_text() for path in shown} == shown


SUMMARY = '{"count": 24, "mean": 12.1, "max": 20.0}'
BROKEN = "nonzero_exit 1\nValueError: could not convert string to float: 'broken'\n"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with the tutorial's data, and a shell that knows a server which signs, and its worker."""
    folder: Path = tmp_path_factory.mktemp("tutorial")
    key = folder / "worker.key"
    made = run(["sandrun", "keygen", str(key)], shell_path(), folder)
    with Service(worker_key=key) as service:
        environment = {**shell(service), "SANDRUN_WORKER": made.stdout.split()[-1]}
        done = tutorial("make_data.py", folder, environment, "data")
        assert (done.returncode, len(list((folder / "data").iterdir()))) == (0, 200)
        yield folder, environment


def shell_path() -> dict[str, str]:
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}


def tutorial(
    name: str, folder: Path, environment: dict[str, str], *args: str
) -> subprocess.CompletedProcess[str]:
    """One of its programs, run in the folder."""
    program = str(EXAMPLES / "tutorial" / name)
    first = sys.executable if name.endswith(".py") else "/bin/bash"
    return run([first, program, *args], environment, folder)


@pytest.mark.parametrize("name", ["one.py", "one.sh"])
def test_one_job(name: str, pipeline: tuple[Path, dict[str, str]]) -> None:
    folder, environment = pipeline
    done = tutorial(name, folder, environment, "data/station-000.csv")
    where = "first/summary.json " if name == "one.py" else ""
    newline = "\n" if name == "one.py" else ""
    assert (done.stdout, done.stderr) == (f"ok 0\n{where}{SUMMARY}{newline}", "")
    done = tutorial(name, folder, environment, "data/station-017.csv")
    assert (done.stdout, done.stderr) == (BROKEN, "")


@pytest.mark.timeout(300)
def test_a_batch_of_200_with_receipts(pipeline: tuple[Path, dict[str, str]]) -> None:
    folder, environment = pipeline
    done = tutorial("batch.py", folder, environment, "data", "results")
    assert (done.stdout, done.stderr, done.returncode) == ("3 nonzero_exit, 197 ok\n", "", 0)
    results = folder / "results"
    assert len(list(results.glob("*/status.json"))) == 200
    assert "could not convert string to float" in (results / "station-017" / "error.txt").read_text()
    # What is done is not done again; what is missing is.
    (results / "station-001" / "status.json").unlink()
    done = tutorial("batch.py", folder, environment, "data", "results")
    assert (done.stdout, done.stderr, done.returncode) == ("1 ok\n", "", 0)
    # Receipts hold, and do not once a byte has changed.
    few = folder / "few"
    for name in ("station-000", "station-001", "station-017"):
        shutil.copytree(results / name, few / name)
    done = tutorial("verify.sh", folder, environment, "few")
    assert (done.stdout, done.stderr, done.returncode) == ("3 receipts hold\n", "", 0)
    (few / "station-001" / "summary.json").write_text("{}")
    assert tutorial("verify.sh", folder, environment, "few").returncode == 1


def test_a_batch_that_another_worker_signed_is_not_taken(pipeline: tuple[Path, dict[str, str]]) -> None:
    folder, environment = pipeline
    few = folder / "two"
    few.mkdir()
    for number in (3, 4):
        shutil.copy(folder / "data" / f"station-00{number}.csv", few)
    other = base64.b64encode(bytes(32)).decode()
    done = tutorial("batch.py", folder, {**environment, "SANDRUN_WORKER": other}, "two", "none")
    assert done.returncode == 1
    assert "stopped: The receipt is of the worker" in done.stderr
    assert not (folder / "none").exists()


def test_a_batch_with_curl(pipeline: tuple[Path, dict[str, str]]) -> None:
    folder, environment = pipeline
    some = folder / "some"
    some.mkdir()
    for number in (0, 1, 2, 16, 17, 18):
        shutil.copy(folder / "data" / f"station-{number:03}.csv", some)
    done = tutorial("batch.sh", folder, environment, "some", "with-curl")
    assert (done.stdout, done.stderr, done.returncode) == ("5 summaries, 1 errors\n", "", 0)
    assert (folder / "with-curl" / "station-000" / "summary.json").read_text() == SUMMARY
    error = (folder / "with-curl" / "station-017" / "error.txt").read_text()
    assert error.endswith("could not convert string to float: 'broken'\n")


def test_a_batch_stops_when_a_quota_is_used_up_and_goes_on_later(tmp_path: Path) -> None:
    """Nothing that was done is lost: the next run does the rest."""
    quota = {"SANDRUN_QUOTA__JOBS_PER_HOUR": "3"}
    with Service(environment=quota) as service:
        environment = shell(service)
        tutorial("make_data.py", tmp_path, environment, "all")
        (tmp_path / "data").mkdir()
        for number in range(5):
            shutil.copy(tmp_path / "all" / f"station-00{number}.csv", tmp_path / "data")
        done = tutorial("batch.py", tmp_path, environment, "data", "results")
        assert (done.stdout, done.returncode) == ("3 ok\n", 1)
        assert "stopped: Hourly quota exhausted (3/3 jobs submitted in the last hour)" in done.stderr
        assert len(list((tmp_path / "results").glob("*/status.json"))) == 3
    with Service() as service:
        done = tutorial("batch.py", tmp_path, shell(service), "data", "results")
        assert (done.stdout, done.returncode) == ("2 ok\n", 0)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The folder with the archive that two of the FAQ's programs send."""
    (tmp_path / "main.py").write_text("print('asked')\nopen('out.txt', 'w').write('x')\n")
    subprocess.run(["tar", "-czf", "job.tar.gz", "main.py"], cwd=tmp_path, check=True, timeout=10)
    return tmp_path


def test_requests(environment: dict[str, str], archive: Path) -> None:
    done = run([sys.executable, str(EXAMPLES / "asked" / "with_requests.py")], environment, archive)
    assert (done.stdout, done.stderr, done.returncode) == ("asked\n\n", "", 0)


def test_polling(environment: dict[str, str], archive: Path) -> None:
    done = run(["/bin/bash", str(EXAMPLES / "asked" / "poll.sh")], environment, archive)
    assert (done.stdout, done.stderr, done.returncode) == ("asked\n\n", "", 0)
    with tarfile.open(archive / "outputs.tar.gz") as outputs:
        assert outputs.getnames() == ["out.txt"]


def test_a_page_that_fetches(environment: dict[str, str]) -> None:
    """From another server, as the FAQ says; and the WebSocket of the same answer."""
    handler = functools.partial(Quiet, directory=EXAMPLES / "asked")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with browsers.browser() as browser, browser.new_context() as context:
                visit = browsers.Visit(context)
                url = environment["SANDRUN_URL"]
                visit.page.goto(f"http://localhost:{server.server_port}/fetch.html?server={url}")
                visit.page.get_by_role("button", name="Run").click()
                visit.page.get_by_text("hello\n", exact=False).nth(1).wait_for()
                assert visit.page.locator("#output").text_content() == "hello\n"
                job = httpx.post(
                    f"{url}/submit",
                    files={"files": ("main.py", b"print('live')")},
                    data={"manifest": '{"entrypoint": "main.py"}'},
                ).json()["job_id"]
                heard = visit.page.evaluate(LISTEN, f"{url.replace('http', 'ws')}/logs/{job}/stream")
                assert heard == ["live\n", 1000]
                assert visit.complaints == []
        finally:
            server.shutdown()
            thread.join()


# What `onmessage = e => console.log(e.data)` would log, and how the connection ends.
LISTEN = """url => new Promise(resolve => {
    const socket = new WebSocket(url), heard = [];
    socket.onmessage = e => heard.push(e.data);
    socket.onclose = e => resolve([heard.join(""), e.code]);
})"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


PROGRAMS = {
    "ModuleNotFoundError: No module named 'pandas'": "import pandas",
    "EOFError: EOF when reading a line": "input()",
    "Name or service not known": "import urllib.request; urllib.request.urlopen('http://example.org')",
    "Read-only file system": "open('/usr/x', 'w')",
    "ModuleNotFoundError: No module named 'pip'": "import subprocess; subprocess.run(['pip', 'install', 'x'])",
    "No space left on device": "open('big', 'wb').write(bytes(150 << 20))",
}


def test_what_programs_print(environment: dict[str, str]) -> None:
    """Every message of that table in docs/troubleshooting.md, and no other."""
    page = (DOCS / "troubleshooting.md").read_text()
    text = page.split("<!-- programs: a test runs them -->")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE) == list(PROGRAMS)
    for message, code in PROGRAMS.items():
        answer = httpx.post(f"{environment['SANDRUN_URL']}/run", json={"code": code}, timeout=60).json()
        assert message in answer["stderr"], (message, answer)
        if answer["files"]:  # else it is deleted already
            assert httpx.delete(f"{environment['SANDRUN_URL']}/jobs/{answer['job_id']}").status_code == 204


def test_a_wrong_manifest_gets_what_its_page_says(environment: dict[str, str]) -> None:
    """The page asks the api's checks one by one; a server asks them together."""
    pages = program("generate_manifest")
    cases = [
        (json.dumps(document), status, reason) for _, document, status, reason in pages.refused().values()
    ]
    cases += [(text, *pages.answer_to(text)) for text in pages.DOCUMENTS.values()]
    assert len(cases) > 20
    for manifest, status, reason in cases:
        answer = httpx.post(
            f"{environment['SANDRUN_URL']}/submit",
            files={"files": ("main.py", b"print(1)")},
            data={"manifest": manifest},
            timeout=60,
        )
        got = (answer.status_code, pages.without_lists(answer.json()["reason"]))
        assert got == (status, reason), manifest[:100]


def test_values_that_its_page_accepts_are_valid() -> None:
    pages = program("generate_manifest")
    for values, inside in ((pages.VALUES, None), (pages.GPU_VALUES, "gpu")):
        for name, (right, _) in values.items():
            one = {name: right}
            manifests.check(
                manifests.parse(json.dumps({"entrypoint": "main.py", **({inside: one} if inside else one)})),
                JobLimits(),
            )
