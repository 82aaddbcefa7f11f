"""The command without a server: what its words mean, and what it exits with."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from sandrun_client import outcomes
from sandrun_client.cli import main, programs, servers, terminal

VERDICTS = {
    "ok": (0, 0),
    "nonzero_exit": (3, 3),
    "signaled": (139, 139),
    "memory_limit": (137, 137),
    "disk_limit": (1, 1),
    "output_limit": (1, 1),
    "wall_time_limit": (137, 124),
    "cpu_time_limit": (137, 124),
    "compile_error": (None, 1),
    "setup_error": (None, 125),
    "executor_lost": (None, 125),
    "internal_error": (None, 125),
    "cancelled": (137, 125),
}


def run(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a separate process, without a terminal and without a server."""
    return subprocess.run(
        [sys.executable, "-m", "sandrun_client", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "SANDRUN_URL": "http://127.0.0.1:1", "LANG": "C.UTF-8", **environment},
    )


@pytest.mark.parametrize("verdict", VERDICTS)
def test_exit_status(verdict: str) -> None:
    code, wanted = VERDICTS[verdict]
    assert terminal.exit_status(verdict, code) == wanted
    words = outcomes.describe_outcome(
        {"verdict": verdict, "limits": {"timeout": 2.0, "memory_mb": 64}, "signal": 11}
    )
    assert (words is None) == (verdict in ("ok", "nonzero_exit"))


def test_every_verdict_of_the_server_has_an_exit_status() -> None:
    from sandrun_shared.jobs import Verdict

    assert set(VERDICTS) == set(Verdict)


def test_outcomes_in_words() -> None:
    assert (
        outcomes.describe_outcome({"verdict": "memory_limit", "limits": {"memory_mb": 512}})
        == "ran out of memory: 512 MB"
    )
    assert outcomes.describe_outcome({"verdict": "signaled", "signal": 11}) == "was killed by SIGSEGV"
    assert (
        outcomes.describe_outcome({"verdict": "setup_error", "detail": "no slot"})
        == "could not be run: no slot"
    )


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["script.py", "--", "x"], ["run", "script.py", "--", "x"]),
        (["--lang", "python"], ["run", "--lang", "python"]),
        (["-"], ["run", "-"]),
        (["status", "x"], ["status", "x"]),
        (["run", "status"], ["run", "status"]),
        (["--help"], ["--help"]),
        (["up", "--port", "1"], ["up", "--port", "1"]),
    ],
)
def test_what_is_no_command_is_run(words: list[str], wanted: list[str]) -> None:
    assert main.dispatched(words) == wanted


def test_no_word_of_a_job_steers_the_terminal() -> None:
    assert terminal.printable("a\x1b[2Jb\x07\ud800ä\n") == "a\\x1b[2Jb\\x07\\ud800ä\n"


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (25e6, "25 MB")])
def test_sizes(count: float, text: str) -> None:
    assert terminal.size_text(count) == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("statsu", "x"), "Did you mean `stats`?"),
        (("--url", "http://127.0.0.1:1", "stats"), "Options of `stats` come after it."),
        (("run", "--bogus"), "--bogus"),
        (("run", "-", "--env", "X"), "NAME=VALUE"),
        (("run", "--watch", "-"), "--watch needs a file or a folder"),
        (("run", "-", "--entrypoint", "x"), "--entrypoint is for folders"),
        (("status",), "JOB_ID"),
        (("stats",), "cannot be reached"),
        (("stats", "--url", "nowhere"), "not the address of a server"),
    ],
)
def test_own_failures_are_125_and_one_line(words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (125, "")
    assert said in done.stderr
    assert done.stderr.startswith("sandrun: ")
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


def test_failures_as_json() -> None:
    done = run("stats", "--json")
    assert done.returncode == 125
    assert "cannot be reached" in json.loads(done.stdout)["reason"]


def test_help_and_version() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in main.sandrun.commands)
    assert run("--version").stdout.startswith("sandrun ")
    assert run().returncode == 125  # standard input is empty code for a server that is not there


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_SANDRUN_COMPLETE" in done.stdout


def test_completion_of_commands_and_files() -> None:
    done = run(_SANDRUN_COMPLETE="bash_complete", COMP_WORDS="sandrun st", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,stats", "plain,status", "file,st"]


def test_commands_of_the_server_are_handed_over(tmp_path: Path) -> None:
    done = run("keygen", str(tmp_path / "key"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "key").exists()
    assert "--port" in run("up", "--help").stdout


def test_commands_of_a_server_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.importlib.metadata, "entry_points", lambda **_: [])
    with pytest.raises(click.ClickException, match="pip install sandrun-server"):
        servers.hand_over(["up"])


def test_a_client_and_a_server_of_different_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share files, so whichever was installed last, the other one lacks some."""
    monkeypatch.setattr(
        servers.importlib.metadata, "version", {"sandrun-client": "1", "sandrun-server": "2"}.get
    )
    assert servers.version() == "1, 2"
    with pytest.raises(
        click.ClickException, match="sandrun-client 1 and sandrun-server 2 are both installed"
    ):
        servers.hand_over(["doctor", "--help"])  # harmless, should it be handed over
    monkeypatch.setattr(servers.importlib.metadata, "version", lambda _: "1")
    assert servers.version() == "1"


def test_commands_of_a_server_that_lacks_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = servers.importlib.metadata.EntryPoint("server", "no_such_package:main", servers.GROUP)
    monkeypatch.setattr(servers.importlib.metadata, "entry_points", lambda **_: [entry])
    with pytest.raises(click.ClickException, match="lacks no_such"):
        servers.hand_over(["up"])


@pytest.mark.parametrize("name", servers.COMMANDS)
def test_the_server_has_the_commands_that_are_listed(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0
    assert f"sandrun {name}" in done.stdout


def directory(path: Path, *names: str, manifest: Any = None) -> Path:
    for name in names:
        (path / name).write_text("")
    if manifest is not None:
        (path / "job.json").write_text(json.dumps(manifest))
    return path


def test_the_entrypoint_of_a_folder(tmp_path: Path) -> None:
    folder = directory(tmp_path, "main.js", "other.py")
    assert programs._directory_options(folder, None, {}) == ("main.js", {})
    assert programs._directory_options(folder, "other.py", {"timeout": 1}) == ("other.py", {"timeout": 1})
    directory(tmp_path, manifest={"entrypoint": "other.py", "timeout": 9, "memory_mb": 64})
    assert programs._directory_options(folder, None, {"timeout": 1}) == (
        "other.py",
        {"timeout": 1, "memory_mb": 64},
    )


def test_a_folder_that_does_not_tell(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="no main file"):
        programs._directory_options(tmp_path, None, {})
    directory(tmp_path, "main.py", "main.sh")
    with pytest.raises(click.UsageError, match=r"main\.py and main\.sh"):
        programs._directory_options(tmp_path, None, {})
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(click.UsageError, match="is not JSON"):
        programs._directory_options(tmp_path, None, {})
