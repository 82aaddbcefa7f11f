"""The table of interpreters."""

import os
from pathlib import Path

import pytest

from sandrun_executor.environments.interpreters import installed
from sandrun_sandbox import job
from sandrun_shared.languages import ENTRYPOINT, EXECUTABLE, LANGUAGES, Language


def program(folder: Path, text: str, mode: int = 0o755) -> str:
    path = folder / "tool"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(mode)
    return str(path)


def language(path: str) -> Language:
    return Language(
        name="tool", main="main", extensions=(), command=(path, ENTRYPOINT), version=(path, "--version")
    )


def found(path: str) -> dict[str, str]:
    return {name: interpreter.version for name, interpreter in installed([language(path)]).items()}


def test_only_what_is_here_is_offered() -> None:
    here = {
        language.name for language in LANGUAGES if not language.needs or os.access(language.needs, os.X_OK)
    }
    offered = installed()
    assert set(offered) == here
    assert {"sh", "bash", "python3", EXECUTABLE} <= here
    assert offered["python3"].version.startswith("3.")
    assert offered[EXECUTABLE].version == os.uname().machine
    assert all(name == interpreter.name for name, interpreter in offered.items())


def test_what_the_sandbox_replaces_is_what_the_table_says() -> None:
    assert job.ENTRYPOINT == ENTRYPOINT


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("echo v18.19.0", "18.19.0"),
        ("echo 'tool 4.2 (2022)' >&2", "4.2"),
        ("echo none; exit 3", ""),
        ("echo 'ruby 3.1.2p20 (2022-04-12)'", "3.1.2"),
        ("echo x${SECRET}7.1", "7.1"),
        ("echo x86_64", "x86_64"),
        ("echo 'not a number'", "not"),
    ],
)
def test_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str) -> None:
    monkeypatch.setenv("SECRET", "9.9")  # the tool gets none of our environment
    assert found(program(tmp_path, text)) == {"tool": version}


def test_missing_or_not_executable(tmp_path: Path) -> None:
    assert found(str(tmp_path / "none")) == {}
    if os.geteuid() != 0 or not os.access(program(tmp_path, "", 0o644), os.X_OK):
        assert found(program(tmp_path, "", 0o644)) == {}
