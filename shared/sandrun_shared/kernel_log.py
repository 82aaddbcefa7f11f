"""Kernel settings that keep clients' words out of its log (sysctl(8))."""

from collections.abc import Iterable
from pathlib import Path

# deploy/systemd/sysctl.conf sets them, with the reason for each.
WANTED = {"debug.exception-trace": "0", "vm.oom_dump_tasks": "0", "kernel.print-fatal-signals": "0"}


def others(folder: Path = Path("/proc/sys")) -> dict[str, str]:
    """List the settings whose value is not the wanted one, with their value; a kernel may lack some."""
    found = {}
    for name, wanted in WANTED.items():
        path = folder.joinpath(*name.split("."))
        if path.exists() and (value := path.read_text().strip()) != wanted:
            found[name] = value
    return found


def mend(names: Iterable[str]) -> str:
    """Make the command that sets these."""
    return "sysctl -w " + " ".join(f"{name}={WANTED[name]}" for name in names)
