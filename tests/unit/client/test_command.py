"""The command without a server: what its words mean, and what it exits with."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from sandrun_client import outcomes
from sandrun_client.cli import main, programs, servers, terminal
from sandrun_shared import commandline

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
        (("run", "-", "--timeout", "5x"), "'5x' is not a time: write 30, 90s, 5m or 1h30m."),
        (("run", "-", "--memory", "lots"), "'lots' is not a size"),
        (("run", "-", "-o", "-"), "-o - is for `sandrun download`"),
        (("env", "biuld"), "Did you mean 'build'?"),
        (("env", "build"), "Name environments, or give --all."),
        (("env", "build", "ml-basc"), "Did you mean 'ml-basic'?"),
        (("up", "--port", "x"), "'x' is not a valid integer"),
        (("config", "show", "api.prot"), "Did you mean 'api.port'?"),
        (("config", "check", "--config", "/no/such/file"), "/no/such/file cannot be read: No such file"),
        (("stats",), "Is it running? Start it with: sudo sandrun up; or set SANDRUN_URL"),
        (("statsu", "x"), "Did you mean 'stats'?"),
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
    assert "[Errno" not in done.stderr
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
    assert sorted(done.stdout.split()) == ["file,st", "plain,stats", "plain,status"]


def test_completion_of_languages_and_environments() -> None:
    done = run(_SANDRUN_COMPLETE="bash_complete", COMP_WORDS="sandrun run --lang ru", COMP_CWORD="3")
    assert done.stdout.split() == ["plain,ruby", "plain,rust"]
    done = run(_SANDRUN_COMPLETE="bash_complete", COMP_WORDS="sandrun env build ml", COMP_CWORD="3")
    assert done.stdout.split() == ["plain,ml-basic"]
    # No server answers here: nothing is offered, and nothing is said.
    done = run(_SANDRUN_COMPLETE="bash_complete", COMP_WORDS="sandrun run --environment m", COMP_CWORD="3")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_commands_of_the_server_are_there(tmp_path: Path) -> None:
    done = run("keygen", str(tmp_path / "key"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "key").exists()
    assert "--port" in run("up", "--help").stdout


def test_commands_of_a_server_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [])
    with pytest.raises(click.ClickException, match="not installed here: in a checkout"):
        servers.group()
    with pytest.raises(click.ClickException, match="`sandrun up` belongs to the server, which is not"):
        main.sandrun.main(["up", "--port", "1"], standalone_mode=False)


def test_a_client_and_a_server_of_different_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share files, so whichever was installed last, the other one lacks some."""
    monkeypatch.setattr(importlib.metadata, "version", {"sandrun-client": "1", "sandrun-server": "2"}.get)
    assert commandline.version() == "1, 2"
    with pytest.raises(
        click.ClickException, match="sandrun-client 1 and sandrun-server 2 are both installed"
    ):
        servers.group()
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1")
    assert commandline.version() == "1"


def test_commands_of_a_server_that_lacks_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("server", "no_such_package:main", servers.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [entry])
    with pytest.raises(click.ClickException, match="lacks no_such"):
        servers.group()


def test_commands_of_a_server_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("server", "json:dumps", servers.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [entry])
    with pytest.raises(click.ClickException, match="another version"):
        servers.group()


def test_the_server_has_the_commands_that_are_listed() -> None:
    commands = servers.group().commands
    assert commands.keys() - {"keygen"} == servers.COMMANDS.keys()
    for name, text in servers.COMMANDS.items():
        assert commands[name].get_short_help_str(1000).rstrip(".").startswith(text.rstrip("."))


def every_command(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, *before, name)


COMMANDS = dict(every_command(main.sandrun))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_version(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for option, said in (("-h", "Usage: sandrun"), ("--help", "Usage: sandrun"), ("-V", "sandrun ")):
        with pytest.raises(SystemExit) as ended:
            main.main([*words, option])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_answers_in_json(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    if isinstance(command, click.Group) or words == ("mcp",):  # whose answers are the protocol's
        return
    assert any("--json" in param.opts for param in command.params)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_wrong_command_line_is_125_and_names_the_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([*words, "--no-such-option", "--json"])
    assert ended.value.code == 125
    captured = capsys.readouterr()
    assert f"`sandrun {' '.join(words)} --help` tells more" in captured.err
    assert json.loads(captured.out)["error"] == "Wrong command line"


def test_words_for_help_and_version() -> None:
    assert run("help").stdout == run("-h").stdout
    assert run("help", "env", "build").stdout == run("env", "build", "--help").stdout
    assert run("version").stdout == run("-V").stdout == run("run", "-V").stdout
    assert "Did you mean 'stats'" in run("help", "statz").stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("1.5", 1.5), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("90S", 90), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert commandline.Duration().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("512", 512), ("512m", 512), ("1g", 1024), ("1.5GiB", 1536), ("2048k", 2), ("1 GB", 1024), ("1k", 1)],
)
def test_sizes_that_are_given(text: str, mebibytes: int) -> None:
    assert commandline.Size().convert(text, None, None) == mebibytes


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "5x", "m", "1h x", "inf", "nan", "1m-1m"])
def test_what_is_no_duration_or_size(text: str) -> None:
    for kind in (commandline.Duration(), commandline.Size()):
        if isinstance(kind, commandline.Size) and text == "1m-1m":
            continue
        with pytest.raises(click.BadParameter, match="is not a"):
            kind.convert(text, None, None)


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
