"""Numbers into a table, ratios and JSON."""

import os
import platform
import statistics
from pathlib import Path
from typing import Any

import aims
from aims import KINDS
from crowd import Level
from measures import Rates, Samples

LOG_P99_MS = 50
REQUEST_P99_MS = 50
RECOVERY_MS = 3000


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _quantiles(taken: list[float]) -> dict[str, float]:
    return {"p50_ms": 1e3 * quantile(taken, 0.5), "p99_ms": 1e3 * quantile(taken, 0.99), "n": len(taken)}


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory >> 10,
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def summary(
    samples: Samples,
    rates: Rates,
    memory: dict[str, float],
    logs: dict[str, list[float]],
    requests: dict[str, list[float]],
    back: dict[str, list[float]],
    crowd: dict[int, Level],
) -> dict[str, Any]:
    """Everything that was measured, in milliseconds, jobs per second and KiB."""
    latency = {
        name: {kind: _quantiles(taken) for kind, taken in kinds.items()} for name, kinds in samples.items()
    }
    rate = {
        name: {str(clients): statistics.median(values) for clients, values in by_clients.items()}
        for name, by_clients in rates.items()
    }
    result: dict[str, Any] = {"latency": latency, "jobs_per_second": rate, "memory_kib": memory}
    result["log_latency"] = {name: _quantiles(taken) for name, taken in logs.items()}
    result["request_latency"] = {name: _quantiles(taken) for name, taken in requests.items()}
    result["recovery"] = {name: _quantiles(taken) for name, taken in back.items()}
    result["crowd"] = {
        str(count): {"pss_kib": level.pss_kib, "cgroup_kib": level.cgroup_kib, **_quantiles(level.starts)}
        for count, level in crowd.items()
    }
    result["aims"] = aims.checked(result)
    result["most_ms"] = {
        "log_latency": LOG_P99_MS,
        "request_latency": REQUEST_P99_MS,
        "recovery": RECOVERY_MS,
    }
    return result


def table(result: dict[str, Any]) -> str:
    """For people."""
    latency, rate = result["latency"], result["jobs_per_second"]
    lines = ["| subject | p50 | p99 | to bare | idle p50 | idle p99 | to bare | 1 | 2 | 8 clients |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, kinds in latency.items():
        bare = latency[f"bare {name.split()[1]}"]
        cells = [name]
        for kind in KINDS:
            own = kinds[kind]
            cells += [f"{own['p50_ms']:.2f}", f"{own['p99_ms']:.2f}"]
            cells.append(f"{own['p50_ms'] / bare[kind]['p50_ms']:.2f}")
        cells += [f"{rate[name][count]:.0f}" if name in rate else "" for count in ("1", "2", "8")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Milliseconds; the last three columns are jobs per second.", ""]
    lines += ["| aim | is | to be | |", "|---|--:|--:|---|"]
    for entry in result["aims"]:
        met = "met" if entry["met"] else "missed"
        lines.append(f"| {entry['name']} | {entry['is']:.3g} | {entry['to_be']} | {met} |")
    lines += _aims(result["log_latency"], "printed to read", LOG_P99_MS)
    lines += _aims(result["request_latency"], "request, 8 clients", REQUEST_P99_MS)
    lines += _aims(result["recovery"], "SIGKILL to healthy, ms", RECOVERY_MS)
    if result["memory_kib"]:
        lines += ["", "| memory | MiB |", "|---|--:|"]
        for name, value in result["memory_kib"].items():
            shown = f"{value:.0f} (count)" if name.startswith(("sandboxes", "parked sandboxes")) else ""
            lines.append(f"| {name} | {shown or f'{value / 1024:.2f}'} |")
    if result["crowd"]:
        lines += ["", "| sleeping jobs | PSS of each, MiB | cgroup of each, MiB | start p50, ms | p99 |"]
        lines.append("|--:|--:|--:|--:|--:|")
        for count, own in result["crowd"].items():
            sizes = [f"{own[name] / 1024:.2f}" for name in ("pss_kib", "cgroup_kib")]
            times = [f"{own[name]:.2f}" for name in ("p50_ms", "p99_ms")]
            lines.append("| " + " | ".join([count, *sizes, *times]) + " |")
    return "\n".join(lines)


def _aims(measured: dict[str, Any], title: str, most_ms: float) -> list[str]:
    """A table of latencies whose p99 has an aim; nothing when nothing was measured."""
    lines = ["", f"| {title} (p99 to be ≤ {most_ms} ms) | p50 | p99 | |", "|---|--:|--:|---|"]
    for name, own in measured.items():
        met = "met" if own["p99_ms"] <= most_ms else "missed"
        lines.append(f"| {name} | {own['p50_ms']:.2f} | {own['p99_ms']:.2f} | {met} |")
    return lines if measured else []
