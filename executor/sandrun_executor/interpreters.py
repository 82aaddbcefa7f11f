"""The interpreters a job may name: one table, and which of them this machine has."""

import os
import re
import subprocess
from dataclasses import dataclass

from sandrun_shared.protocol import Interpreter


@dataclass(frozen=True)
class Entry:
    """How to run and how to ask for the version."""

    command: tuple[str, ...]
    version: tuple[str, ...] = ("--version",)


TABLE: dict[str, Entry] = {
    "python3": Entry(("/usr/bin/python3",)),
    "node": Entry(("/usr/bin/node",)),
    "bash": Entry(("/usr/bin/bash",)),
    "sh": Entry(("/usr/bin/sh",), ()),
    "ruby": Entry(("/usr/bin/ruby",)),
    "Rscript": Entry(("/usr/bin/Rscript",)),
    "perl": Entry(("/usr/bin/perl",), ("-e", "print substr($^V, 1)")),
    "php": Entry(("/usr/bin/php",)),
}
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")


def installed() -> dict[str, Interpreter]:
    """The interpreters found here with their versions; "" where one does not tell."""
    found = {}
    for name, entry in TABLE.items():
        if not os.access(entry.command[0], os.X_OK):
            continue
        version = ""
        if entry.version:
            answer = subprocess.run(
                [*entry.command, *entry.version],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
                env={},
            )
            match = _VERSION.search(answer.stdout + answer.stderr)
            version = match[0] if match else ""
        found[name] = Interpreter(name, version)
    return found
