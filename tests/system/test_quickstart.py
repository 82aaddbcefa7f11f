"""The newcomer's command, from a folder with a space, twice, ended by Ctrl-C."""

import subprocess
from contextlib import closing
from pathlib import Path

from support import machine
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


def test_quickstart() -> None:
    with closing(Service()) as own:
        checkout = own.folder / "with a space"
        _copy(checkout)
        own.command = [str(checkout / "deploy/quickstart.sh")]
        for attempt in ("first", "second"):
            own.start("until Ctrl-C")
            assert '"verdict": "ok"' in own.said
            assert f"http://127.0.0.1:{own.port}" in own.said
            # The second time everything is there already.
            assert ("making" in own.log.read_text()) == (attempt == "first")
            assert own.run("print(6 * 7)")["stdout"] == "42\n"
            inside = machine.descendants(own.pid)
            assert own.interrupt() == 0
            assert not inside & machine.processes().keys()
            assert not own.socket.parent.exists()
            assert machine.cgroups(own) == set()
