"""The table of interpreters."""

import os
from pathlib import Path

import pytest

from sandrun_executor import interpreters
from sandrun_executor.interpreters import TABLE, Entry, installed


def program(folder: Path, text: str, mode: int = 0o755) -> str:
    path = folder / "tool"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(mode)
    return str(path)


def found(monkeypatch: pytest.MonkeyPatch, entry: Entry) -> dict[str, str]:
    monkeypatch.setattr(interpreters, "TABLE", {"tool": entry})
    return {name: interpreter.version for name, interpreter in installed().items()}


def test_commands_are_absolute() -> None:
    assert all(os.path.isabs(entry.command[0]) for entry in TABLE.values())


def test_only_what_is_here_is_offered() -> None:
    here = {name for name, entry in TABLE.items() if os.access(entry.command[0], os.X_OK)}
    offered = installed()
    assert set(offered) == here
    assert {"sh", "bash", "python3"} <= here
    assert offered["python3"].version.startswith("3.")
    assert offered["sh"].version == ""
    assert all(name == interpreter.name for name, interpreter in offered.items())


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("echo v18.19.0", "18.19.0"),
        ("echo 'tool 4.2 (2022)' >&2", "4.2"),
        ("echo none; exit 3", ""),
        ("echo 'ruby 3.1.2p20 (2022-04-12)'", "3.1.2"),
        ("echo x${SECRET}7.1", "7.1"),
    ],
)
def test_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str) -> None:
    monkeypatch.setenv("SECRET", "9.9")  # the tool gets none of our environment
    assert found(monkeypatch, Entry((program(tmp_path, text),))) == {"tool": version}


def test_missing_or_not_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, Entry((str(tmp_path / "none"),))) == {}
    if os.geteuid() != 0 or not os.access(program(tmp_path, "", 0o644), os.X_OK):
        assert found(monkeypatch, Entry((program(tmp_path, "", 0o644),))) == {}
