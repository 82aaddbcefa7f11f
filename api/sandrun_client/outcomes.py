"""How a job ended, in words for people."""

import signal
from collections.abc import Mapping
from typing import Any

FAULTS = frozenset({"setup_error", "executor_lost", "internal_error"})  # verdicts that blame Sandrun


def describe_outcome(status: Mapping[str, Any]) -> str | None:
    """How a job ended in words, None where its exit status alone tells it."""
    limits = status.get("limits") or {}
    verdict = status.get("verdict")
    words = {
        "wall_time_limit": "timed out" + _after(limits.get("timeout")),
        "cpu_time_limit": "used up its CPU time" + _of(limits.get("cpu_seconds"), "s"),
        "memory_limit": "ran out of memory" + _of(limits.get("memory_mb"), "MB"),
        "disk_limit": "ran out of disk space" + _of(limits.get("disk_mb"), "MB"),
        "output_limit": "printed or left more than allowed",
        "signaled": f"was killed by {_signal(status.get('signal'))}",
        "cancelled": "was cancelled",
        "compile_error": "was not compiled",
    }
    if verdict in FAULTS:
        return f"could not be run: {status.get('detail') or verdict}"
    return words.get(str(verdict))


def _after(seconds: float | None) -> str:
    return "" if seconds is None else f" after {seconds:g} s"


def _of(limit: float | None, unit: str) -> str:
    return "" if limit is None else f": {limit:g} {unit}"


def _signal(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"
