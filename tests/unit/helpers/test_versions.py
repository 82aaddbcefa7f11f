"""Versions of host programs, and the bounded cost of programs that print none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sandrun_helpers import versions
from support import machine

ENDLESS = "exec sleep 1000"  # longer than any test


def program(folder: Path, text: str) -> list[str]:
    path = folder / "tool"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return [str(path), "--version"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("echo v18.19.0", "18.19.0"),
        ("echo 'tool 4.2 (2022)' >&2", "4.2"),
        ("echo 7.1; echo 'loader 2.3' >&2", "7.1"),
        ("echo none; exit 3", ""),
        ("echo 'ruby 3.1.2p20 (2022-04-12)'", "3.1.2"),
        ("echo x${SECRET}7.1", "7.1"),
        ("echo x86_64", "x86_64"),
        ("echo 'not a number'", "not"),
        ("echo '../../etc/passwd'", ".."),
        ("echo '\u0661.\u0662'", ""),
        (f"echo {'9' * 50}.1", "9" * 40),
    ],
)
def test_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str) -> None:
    monkeypatch.setenv("SECRET", "9.9")  # the tool gets none of our environment
    assert versions.version_of(program(tmp_path, text)) == version


def test_what_cannot_be_run_has_no_version(tmp_path: Path) -> None:
    assert versions.version_of([str(tmp_path / "none")]) == ""
    (tmp_path / "plain").write_text("#!/bin/sh\necho 1.2")
    assert versions.version_of([str(tmp_path / "plain")]) == ""
    assert versions.version_of(["/bin/echo", "\0"]) == ""


def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    command = program(tmp_path, f"echo $$ > {tmp_path}/pid; echo 1.2; {ENDLESS}")
    assert versions.version_of(command, 0.5) == ""
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_one_that_hangs_floods_or_leaves_others_costs_its_own_version_alone(tmp_path: Path) -> None:
    """As a process, since its limits and its end are the process's."""
    texts = {
        "well": "echo 4.5",
        "floods": "echo 1.1; exec yes",
        "leaves": f"echo 2.2; ({ENDLESS}) & echo $! > {tmp_path}/left",
        "hangs": f"echo $$ > {tmp_path}/hung; {ENDLESS}",
    }
    commands = []
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        commands.append(program(tmp_path / name, text))
    source = "from sandrun_helpers import versions; versions.SECONDS = 3; " + (
        "one = versions.version_of; versions.version_of = lambda command: one(command, 3); versions.main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", source, json.dumps(commands)],
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert json.loads(done.stdout) == ["4.5", "1.1", "2.2", ""]
    for name in ("left", "hung"):
        gone = Path(f"/proc/{(tmp_path / name).read_text().strip()}")
        assert machine.eventually(lambda gone=gone: not gone.exists())
