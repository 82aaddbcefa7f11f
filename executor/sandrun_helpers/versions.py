"""`python -m sandrun_helpers.versions COMMANDS`: runs host programs and prints the version of each.

COMMANDS is a JSON list of command lines. The answer is a JSON list with one text for each, "" for a program
that prints nothing, is missing, or does not end. Runs without privileges, because those programs are not ours
(see environments/interpreters.py).
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

SECONDS = 20.0  # for each program; all run at once
OUTPUT_BYTES = 64 << 10  # of each stream; a program that writes more dies by SIGXFSZ (setrlimit(2))
_KILL_SECONDS = 2.0
_LONGEST = 40
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?", re.ASCII)
_WORD = re.compile(r"[\w.+-]{1,40}", re.ASCII)


def version_of(command: Sequence[str], seconds: float = SECONDS) -> str:
    """Extract the first number with a dot that a program prints, else its first word if it exits with 0."""
    streams = [os.memfd_create("output") for _ in range(2)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=streams[0], stderr=streams[1], env={}, cwd="/"
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # a process in state D dies later
                process.wait(_KILL_SECONDS)
            return ""
        text = "".join(os.pread(fd, OUTPUT_BYTES, 0).decode("utf-8", "replace") for fd in streams)
    except (OSError, ValueError):
        return ""
    finally:
        for fd in streams:
            os.close(fd)
    match = _VERSION.search(text) or (_WORD.match(text) if code == 0 else None)
    return match[0][:_LONGEST] if match else ""


def limit() -> None:
    """Bound the file size and CPU time of a program that might stay behind."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, OUTPUT_BYTES),
        (resource.RLIMIT_CPU, int(SECONDS)),
    ):
        resource.setrlimit(kind, (value, value))


def main() -> None:
    """Print the versions and exit, killing whatever is left of the programs."""
    commands: list[list[str]] = json.loads(sys.argv[1])
    limit()
    with ThreadPoolExecutor(len(commands) or 1) as pool:
        answer = list(pool.map(version_of, commands))
    os.write(1, json.dumps(answer).encode())
    if os.getpgrp() == os.getpid():  # as the daemon starts it
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
