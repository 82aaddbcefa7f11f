"""What the figures of one run are to reach, as ratios between subjects of that run wherever it can be."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from measures import BARE_AT_ONCE

BACK_TO_BACK, AFTER_IDLENESS = KINDS = ("back to back", "after idleness")
PARKED_KIB = 3e6 / 1024
FLAT = 1.25  # what the most jobs at once may cost each, to what the fewest do


@dataclass(frozen=True)
class Aim:
    """The median of a subject to that of another one, at most."""

    subject: str
    other: str
    most: float
    kinds: tuple[str, ...] = KINDS


AIMS = (
    Aim("executor python", "bare python", 0.5),
    Aim("run python", "bare python", 0.7, (BACK_TO_BACK,)),
    Aim("run python", "bare python", 0.35, (AFTER_IDLENESS,)),
    Aim("executor pandas", "bare pandas", 0.03),
    Aim("run pandas", "bare pandas", 0.03),
    Aim("executor bash", "bwrap bash", 1.0),
    Aim("executor node", "bare node", 1.2),
    Aim("run node", "bare node", 1.2),
)
# `sandrun run`, from its start to its end, as a multiple of curl's whole process and a constant.
COMMAND_TIMES, COMMAND_MS = 3, 100.0
RATES = (("executor python", 1.2), ("run python", 1.5))


def checked(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Of what was measured: name, is, to_be, met."""
    return [*_latency(result["latency"]), *_rates(result["jobs_per_second"]), *_memory(result)]


def _entry(name: str, value: float, sign: str, bound: float) -> dict[str, Any]:
    met = value <= bound if sign == "≤" else value >= bound
    return {"name": name, "is": value, "to_be": f"{sign} {bound:.4g}", "met": met}


def _latency(latency: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for aim in AIMS:
        for kind in aim.kinds if {aim.subject, aim.other} <= latency.keys() else ():
            ratio = latency[aim.subject][kind]["p50_ms"] / latency[aim.other][kind]["p50_ms"]
            yield _entry(f"{aim.subject} to {aim.other}, p50 {kind}", ratio, "≤", aim.most)
    if {"command python", "curl python"} <= latency.keys():
        curl, command = (latency[f"{kind} python"][BACK_TO_BACK]["p50_ms"] for kind in ("curl", "command"))
        name = f"sandrun run to {COMMAND_TIMES} × curl + {COMMAND_MS:g} ms, p50"
        yield _entry(name, command / (COMMAND_TIMES * curl + COMMAND_MS), "≤", 1.0)


def _rates(rates: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, least in RATES:
        if {name, "bare python"} <= rates.keys():
            ratio = rates[name]["8"] / rates["bare python"][str(BARE_AT_ONCE)]
            yield _entry(f"{name} jobs/s, 8 clients, to {BARE_AT_ONCE} bare at once", ratio, "≥", least)


def _memory(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    parked = result["memory_kib"].get("parked sandbox pss")
    if parked is not None:
        yield _entry("PSS of a parked sandbox, KiB", parked, "≤", PARKED_KIB)
    levels = list(result["crowd"].items())
    for name, what in (("pss_kib", "PSS"), ("cgroup_kib", "cgroup's memory"), ("p50_ms", "start p50")):
        if levels:
            (few, first), (many, last) = levels[0], levels[-1]
            ratio = last[name] / first[name]
            yield _entry(f"{what} of each of {many} sleeping jobs to that of {few}", ratio, "≤", FLAT)
