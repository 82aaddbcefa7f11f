"""What is known to be different inside the sandbox, each with its reason: differences.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("differences.toml")
WHOLE = "the whole module"


@dataclass(frozen=True)
class Listed:
    """In which kinds of run (warm, cold) something is different, and why."""

    kinds: frozenset[str]
    reason: str


def load() -> dict[str, Any]:
    """The whole file."""
    return tomllib.loads(FILE.read_text())


def programs() -> set[str]:
    """Names of programs that are listed."""
    return set(load()["program"])


def of_program(name: str) -> Listed:
    """What is known of a program."""
    entry = load()["program"].get(name, {"kinds": [], "reason": ""})
    return Listed(frozenset(entry["kinds"]), entry["reason"])


def of_module(module: str, kind: str) -> dict[str, str]:
    """The tests of a module that end otherwise inside, and how, in this kind of run."""
    return {
        f"test.{module}.{name}" if name != WHOLE else name: entry["inside"]
        for entry in load()["suite"]
        if entry["module"] == module and kind in entry.get("kinds", ["warm", "cold"])
        for name in entry["tests"]
    }


def modules() -> set[str]:
    """Names of modules of which something is listed."""
    return {entry["module"] for entry in load()["suite"]}
