"""The newcomer's command, from a folder with a space, twice, ended by Ctrl-C."""

import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from support import machine
from support.environments import Place
from support.service import Service

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = ("./.venv", "./.git", "__pycache__", "*.egg-info")


def _copy(target: Path) -> None:
    names = subprocess.run(
        ["tar", "-C", ROOT, *(f"--exclude={name}" for name in NOT_COPIED), "-cf", "-", "."],
        capture_output=True,
        check=True,
    )
    target.mkdir()
    subprocess.run(["tar", "-C", target, "-xf", "-"], input=names.stdout, check=True)


def test_quickstart(tmp_path: Path) -> None:
    place = Place(tmp_path)
    folders = {"environments_dir": place.built, "environment_definitions": place.own}
    with closing(Service(environment=place.variables, **folders)) as own:
        checkout = own.folder / "with a space"
        _copy(checkout)
        command = str(checkout / "deploy/quickstart.sh")
        for attempt, words in (("first", []), ("second", ["--env", "mine"])):
            own.command = [command, *words]
            own.start("until Ctrl-C")
            assert '"verdict": "ok"' in own.said
            assert f"In a browser: http://127.0.0.1:{own.port}/\n" in own.said
            # The second time everything is there already.
            assert ("making" in own.log.read_text()) == (attempt == "first")
            assert ("' env build agent" in own.said) == (not words)
            assert ("/run?environment=mine'" in own.said) == bool(words)
            assert own.run("print(6 * 7)")["stdout"] == "42\n"
            if words:
                assert own.run("import one; print(one.value)", environment="mine")["stdout"] == "1\n"
            inside = machine.descendants(own.pid)
            assert own.interrupt() == 0
            assert not inside & machine.processes().keys()
            assert not own.socket.parent.exists()
            assert machine.cgroups(own) == set()
        for words, reason in (
            (["--env=no-such"], "no-such: there is no such environment"),
            (["--env"], "a name"),
        ):
            own.command = [command, *words]
            with pytest.raises(AssertionError, match=reason):
                own.start()
            assert own.wait() != 0
