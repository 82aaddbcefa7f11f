"""The table of interpreters, and the helper that asks them for their versions."""

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_executor.environments import interpreters
from sandrun_executor.environments.interpreters import installed
from sandrun_sandbox import job
from sandrun_shared.languages import ENTRYPOINT, EXECUTABLE, LANGUAGES, Language

NOBODY = (65534, 65534)
OURS = (os.getuid(), os.getgid())


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can read, unlike tmp_path."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def language(folder: Path, text: str, name: str = "tool", mode: int = 0o755) -> Language:
    """A language whose interpreter is a script of this text."""
    path = folder / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(mode)
    return Language(
        name=name,
        main="main",
        extensions=(),
        command=(str(path), ENTRYPOINT),
        version=(str(path), "--version"),
    )


def found(*table: Language, ids: tuple[int, int] = OURS) -> dict[str, str]:
    listed = asyncio.run(installed(ids, table))
    return {name: interpreter.version for name, interpreter in listed.items()}


def test_only_what_is_here_is_offered() -> None:
    here = {
        language.name for language in LANGUAGES if not language.needs or os.access(language.needs, os.X_OK)
    }
    offered = asyncio.run(installed(OURS))
    assert set(offered) == here
    assert {"sh", "bash", "python3", EXECUTABLE} <= here
    assert offered["python3"].version.startswith("3.")
    assert offered[EXECUTABLE].version == os.uname().machine
    assert all(name == interpreter.name for name, interpreter in offered.items())


def test_what_the_sandbox_replaces_is_what_the_table_says() -> None:
    assert job.ENTRYPOINT == ENTRYPOINT


def test_missing_or_not_executable(folder: Path) -> None:
    tool = language(folder, "echo 1.2")
    Path(tool.needs).unlink()
    assert found(tool) == {}
    assert found(language(folder, "echo 1.2", mode=0o644)) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
def test_root_runs_no_interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that reports its privileges, and would leave a file as root."""
    monkeypatch.setenv("SECRET", "canary")
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    closed = folder / "closed"
    closed.mkdir(0o700)
    spy = (
        f"touch {folder}/open/made {closed}/made 2>/dev/null\n"
        "echo $(id -u).$(id -g)\n"
        f"{{ id -G; env; ls /proc/self/fd; grep -h -e '^Cap[IPEA]' /proc/self/status; }} > {folder}/open/said\n"
    )
    assert found(language(folder, spy), ids=NOBODY) == {"tool": "65534.65534"}
    assert (folder / "open" / "made").stat().st_uid == NOBODY[0]
    assert not list(closed.iterdir())
    said = (folder / "open" / "said").read_text()
    assert said.splitlines()[0] == str(NOBODY[1])
    assert "SECRET" not in said
    assert {int(line.split()[1], 16) for line in said.splitlines() if line.startswith("Cap")} == {0}
    assert {line for line in said.splitlines() if line.isdecimal()} == {str(NOBODY[1]), "0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "truncated"),
        ("[]", "for others"),
        ('["1.2", "3.4"]', "for others"),
        ('["../../etc"]', "regex"),
        ('["1.2\\n"]', "regex"),
        ("[7]", "Expected `str`"),
        ('["' + "1" * 41 + '"]', "regex"),
        ("x" * 1_000_000, "malformed"),
    ],
)
def test_an_answer_is_believed_only_if_it_looks_like_one(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: str,
    problem: str,
) -> None:
    """The api's user can make its own processes print anything."""
    (folder / "answer").write_text(answer)
    program = f"import shutil, sys; shutil.copyfileobj(open({str(folder / 'answer')!r}), sys.stdout)"
    monkeypatch.setattr(interpreters, "ASK", [sys.executable, "-c", program])
    with caplog.at_level(logging.ERROR):
        assert found(language(folder, "echo 5.6")) == {"tool": ""}
    assert problem in caplog.text


def test_a_helper_that_hangs_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    child = f"import os; open({str(folder / 'pid')!r}, 'w').write(str(os.getpid())); "
    monkeypatch.setattr(interpreters, "ASK", [sys.executable, "-c", child + "import time; time.sleep(1000)"])
    monkeypatch.setattr(interpreters, "ASK_SECONDS", 3.0)
    assert found(language(folder, "echo 5.6")) == {"tool": ""}
    assert "does not answer" in caplog.text
    assert not Path(f"/proc/{(folder / 'pid').read_text()}").exists()


def test_the_loop_runs_while_interpreters_are_asked(folder: Path) -> None:
    """An interpreter that answers only when the daemon's event loop lets it."""
    os.mkfifo(folder / "go", 0o666)
    (folder / "go").chmod(0o666)
    tool = language(folder, f"read line < {folder}/go; echo $line")

    async def scenario() -> dict[str, str]:
        asking = asyncio.create_task(installed(OURS, [tool]))
        while True:
            await asyncio.sleep(0)
            try:
                fd = os.open(folder / "go", os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:  # ENXIO: nobody reads yet (fifo(7))
                continue
        os.write(fd, b"8.9\n")
        os.close(fd)
        return {name: interpreter.version for name, interpreter in (await asking).items()}

    assert asyncio.run(scenario()) == {"tool": "8.9"}
