"""Install packages: runs like a job's program, but with a folder to install to and a proxy.

    install.py uv|npm|bundler FILE VERSION

Only the installer reads the file, which a client wrote. The exit code says why it failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable

INSTALLED, TOOLS = "/usr/packages/installed", "/usr/packages/tools"
SCRATCH = INSTALLED + "/.scratch"
TEMPORARY = SCRATCH + "/temporary"
NOTES_URL = "http://proxy.sandrun.invalid/"
FAILED, REFUSED, NO_SPACE, UNREACHABLE = 20, 21, 22, 23
_FULL = (b"no space left on device", b"enospc")


def _uv(name: str, version: str) -> list[str]:
    target = f"{INSTALLED}/lib/python{version}/site-packages"
    return [f"{TOOLS}/uv", "pip", "install", "--target", target, "--requirements", name]


def _npm(name: str, version: str) -> list[str]:
    locked = False
    for other in ("package.json", "package-lock.json", "npm-shrinkwrap.json"):
        if os.path.exists(other):
            shutil.copyfile(other, f"{INSTALLED}/{other}")
            locked = locked or other != "package.json"
    os.chdir(INSTALLED)
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--omit=dev"]
    return ["/usr/bin/npm", "ci" if locked else "install", *quiet]


def _bundler(name: str, version: str) -> list[str]:
    for other in ("Gemfile", "Gemfile.lock"):
        if os.path.exists(other):
            shutil.copyfile(other, f"{INSTALLED}/{other}")
    os.chdir(INSTALLED)
    return ["/usr/bin/bundle", "install", "--jobs", "2", "--retry", "1"]


COMMANDS: dict[str, Callable[[str, str], list[str]]] = {"uv": _uv, "npm": _npm, "bundler": _bundler}


def _run(command: list[str]) -> tuple[int, bool]:
    """Run the installer and copy its output; returns its exit code and whether it reported a full disk."""
    full = False
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if process.stdout is not None:
        while piece := process.stdout.readline(1 << 16):
            lowered = piece.lower()
            full = full or any(word in lowered for word in _FULL)
            os.write(2, piece)
    return process.wait(), full


def _notes() -> list[str]:
    """Ask the proxy what it refused."""
    try:
        with urllib.request.urlopen(NOTES_URL, timeout=10) as answer:
            return answer.read(1 << 16).decode("utf-8", "replace").splitlines()  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return []


def _why(code: int, full: bool) -> int:
    if code == 0:
        return 0
    notes = _notes()
    for note in notes:
        os.write(2, f"sandrun: {note}\n".encode())
    if full:
        return NO_SPACE
    if any(note.startswith("refused") for note in notes):
        return REFUSED
    return UNREACHABLE if notes else FAILED


def main(kind: str, name: str, version: str) -> int:
    """Install; returns the exit code."""
    try:
        os.makedirs(TEMPORARY)
        code, full = _run(COMMANDS[kind](name, version))
        result = _why(code, full)
        shutil.rmtree(SCRATCH, ignore_errors=True)
    except OSError as error:
        os.write(2, f"sandrun: {error.strerror}\n".encode())
        return NO_SPACE if error.errno == 28 else FAILED  # ENOSPC
    return result


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
