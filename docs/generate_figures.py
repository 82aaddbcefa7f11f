"""Write every table of figures: README.md, docs/benchmark.md, docs/comparison.md.

python docs/generate_figures.py [RESULT.json]     of `tests/bench/run.py --json`: takes its figures first

docs/figures.json holds one run of the benchmark, docs/peers.json measurements of others' software. Counts of
tests come from the tests. A claim names what holds it; tests/repo/test_pages.py looks that up.
"""

import ast
import importlib
import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from written import DOCS, ROOT, table, with_block, write

GENERATOR = Path(__file__).name
FIGURES, PEERS = DOCS / "figures.json", DOCS / "peers.json"
BURST, IDLE = "back to back", "after idleness"
SUBJECTS = {
    "bare": "bare",
    "bwrap": "bubblewrap",
    "executor": "executor's socket",
    "run": "`POST /run`",
    "submit": "`/submit` and `/status?wait`",
}
PROGRAMS = {"python": "python3", "bash": "bash", "node": "node", "pandas": "`import pandas`"}
TAILS = {
    "log_latency": "from printed to read, {}",
    "request_latency": "{}, while 8 clients run jobs",
    "recovery": "from SIGKILL to healthy, {}",
}


@dataclass(frozen=True)
class Claim:
    """A sentence, its figure, and what holds it: files, after `::` a pattern for the names of functions."""

    text: str
    figure: str
    held: tuple[str, ...]


def reduced(result: dict[str, Any]) -> dict[str, Any]:
    """What the pages show of a result of `tests/bench/run.py --json`."""
    latency = {}
    for name, kinds in result["latency"].items():
        bare = result["latency"][f"bare {name.split()[1]}"]
        latency[name] = {
            kind: [_digits(own["p50_ms"]), _digits(own["p50_ms"] / bare[kind]["p50_ms"])]
            for kind, own in kinds.items()
        }
    tails = {
        words.format(name): [_digits(own["p99_ms"]), result["most_ms"][key]]
        for key, words in TAILS.items()
        for name, own in result[key].items()
    }
    return {
        "date": result["date"],
        "machine": {key: result["machine"][key] for key in ("cpu", "cores", "kernel")},
        "rounds": result["rounds"],
        "latency": latency,
        "jobs_per_second": {
            name: {count: round(rates[count]) for count in ("2", "8")}
            for name, rates in result["jobs_per_second"].items()
        },
        "aims": [[aim["name"], _digits(aim["is"]), aim["to_be"], aim["met"]] for aim in result["aims"]],
        "p99_ms": tails,
    }


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def claims(figures: dict[str, Any]) -> list[Claim]:
    """All claims, the measured ones first."""
    load = "tests/load/run.py"
    jobs, clients, kills = (_default(load, name) for name in ("--jobs", "--clients", "--executor-kills"))
    return [
        Claim(
            "Time of a Python job over HTTP (`POST /run`), as a fraction of a bare `python3`",
            _ratios(figures, "run python"),
            ("tests/bench/run.py",),
        ),
        Claim(
            "The same on the executor's socket", _ratios(figures, "executor python"), ("tests/bench/run.py",)
        ),
        Claim(
            "How often root parses a byte that a client wrote",
            "never",
            (
                "tests/repo/test_imports.py::test_executor_loads_no_web_library",
                "tests/fuzz/test_short.py",
            ),
        ),
        Claim(
            "Results that anyone can verify offline; one changed byte makes the check fail",
            "all",
            (
                "tests/contract/test_receipts.py::test_status_and_downloads_carry_a_receipt_that_verifies",
                "tests/system/test_signing.py::test_every_end_is_signed",
                "tests/unit/shared/test_receipts.py::test_any_changed_byte_fails",
            ),
        ),
        Claim(
            "Modules of CPython's own tests in which every test ends the same way inside and outside,"
            " with [the listed exceptions](docs/parity.md)",
            str(len(_import("parity.suite").MODULES)),
            ("tests/parity/run.py", "tests/parity/test_suite.py::test_a_module_ends_inside_as_outside"),
        ),
        Claim(
            "Escape attempts that fail, and that succeed once the layers against them are switched off",
            str(len(_import("support.probes").PROBES)),
            (
                "tests/security/test_probes.py::test_contained",
                "tests/security/test_probes.py::test_escapes_without_*",
            ),
        ),
        Claim(
            f"Jobs of {clients} clients that each end exactly once, while the executor is killed {kills}×",
            f"{jobs:,}",
            (load, "tests/system/test_load.py::test_every_job_has_one_end_and_nothing_remains"),
        ),
    ]


def _ratios(figures: dict[str, Any], subject: str) -> str:
    own = figures["latency"][subject]
    return f"{own[BURST][1]:.2f} in bursts, {own[IDLE][1]:.2f} after idleness"


def _import(name: str) -> Any:
    tests = str(ROOT / "tests")
    if tests not in sys.path:
        sys.path.insert(0, tests)
    return importlib.import_module(name)


def _default(path: str, option: str) -> int:
    """The default of an option of a test program."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]) == repr(option):
            return int(next(ast.literal_eval(word.value) for word in node.keywords if word.arg == "default"))
    raise ValueError(f"{path} has no {option}")


def _measured_on(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    where = f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}"
    return f"{figures['date']}, {where}"


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _note(figures: dict[str, Any]) -> str:
    """A remark that was added to the figures by hand; a new run removes it."""
    return f" {figures['note']}" if "note" in figures else ""


def claims_block(figures: dict[str, Any]) -> str:
    """For the README."""
    rows = []
    for claim in claims(figures):
        files = dict.fromkeys(held.partition("::")[0] for held in claim.held)
        links = [f"[{path.removeprefix('tests/').removesuffix('.py')}]({path})" for path in files]
        rows.append((claim.text, claim.figure, ", ".join(links)))
    foot = (
        "In bursts, one job follows the other; after idleness, 100 ms pass before each job."
        f" The fractions come from [one run](docs/benchmark.md#one-run), {_measured_on(figures)}."
        + _note(figures)
    )
    return table(("claim", "figure", "held by"), rows) + "\n\n" + _filled(foot)


def run_block(figures: dict[str, Any]) -> str:
    """The latencies of one run, for docs/benchmark.md."""
    rows = []
    for name, kinds in figures["latency"].items():
        kind, program = name.split()
        shown = figures["jobs_per_second"].get(name, {}).get("2" if kind == "bare" else "8")
        rate = "" if shown is None else f"{shown}" + (" (two at once)" if kind == "bare" else "")
        cells = [cell for key in (BURST, IDLE) for cell in (f"{kinds[key][0]:g}", f"{kinds[key][1]:.3g}")]
        rows.append((f"{SUBJECTS[kind]}, {PROGRAMS[program]}", *cells, rate))
    head = ("subject", "p50 ms", "to bare", "after idleness, ms", "to bare", "jobs per second, 8 clients")
    about = f"{_measured_on(figures)}, {figures['rounds']} rounds.{_note(figures)}"
    return _filled(about) + "\n\n" + table(head, rows, "lrrrrr")


def aims_block(figures: dict[str, Any]) -> str:
    """What was to be reached, for docs/benchmark.md."""
    rows = [
        (name, f"{value:g}", bound, "met" if met else "missed") for name, value, bound, met in figures["aims"]
    ]
    for name, (value, most) in figures["p99_ms"].items():
        rows.append((f"{name}, p99 ms", f"{value:g}", f"≤ {most}", "met" if value <= most else "missed"))
    return table(("aim", "is", "to be", ""), rows, "lrr")


def _peers(figures: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The others, each with its rate to that of two bare processes at once, then Sandrun in its own run."""
    peers = json.loads(PEERS.read_text())["peers"]
    for peer in peers:
        yield {**peer, "rate_to_bare": peer["rates"][1] / peers[0]["rates"][0]}
    latency, rates = figures["latency"], figures["jobs_per_second"]["run python"]
    yield {
        "rate_to_bare": rates["8"] / figures["jobs_per_second"]["bare python"]["2"],
        "name": f"Sandrun, `POST /run` ({figures['date']})",
        "short": True,
        "python_ms": latency["run python"][BURST][0],
        "idle_ms": latency["run python"][IDLE][0],
        "rates": [rates.get("2"), rates["8"]],
        "to_bare": latency["run python"][BURST][1],
        "kind": "namespaces, cgroup, seccomp, Landlock; a new sandbox for each job",
        "network": "none",
        "root": "nothing",
        "serves": True,
        "receipts": True,
    }


def _receipts(peer: dict[str, Any]) -> str:
    return "signed" if peer.get("receipts") else "none"


def short_block(figures: dict[str, Any]) -> str:
    """The comparison for the README."""
    rows = [
        (
            peer["name"].partition(" (2")[0],
            f"{peer['to_bare']:.2g}",
            f"{peer['rate_to_bare']:.2f}",
            peer["kind"],
            peer["network"],
            peer["root"],
            _receipts(peer),
        )
        for peer in _peers(figures)
        if peer.get("short")
    ]
    head = ("", "time of a job", "rate", "isolation", "network of a job", "root parses", "receipts")
    return table(head, rows, "lrr")


def measured_block(figures: dict[str, Any]) -> str:
    """The measurements, for docs/comparison.md."""
    rows = []
    for peer in _peers(figures):
        python = f"{peer['python_ms']:g}" + (f" ({peer['idle_ms']:g})" if "idle_ms" in peer else "")
        rates = " / ".join("" if rate is None else f"{rate:g}" for rate in peer["rates"])
        name = peer["name"] + (f"; {peer['note']}" if "note" in peer else "")
        start = f"{peer['true_ms']:g}" if "true_ms" in peer else ""
        ratios = (f"{peer['to_bare']:.3g}", f"{peer['rate_to_bare']:.2f}")
        rows.append((name, "HTTP" if peer["serves"] else "exec", start, python, ratios[0], rates, ratios[1]))
    head = ("", "asked by", "`true`, ms", "python3, ms", "to bare", "jobs/s, 2 / 8 at once", "to bare")
    return table(head, rows, "llrrrrr")


def kinds_block(figures: dict[str, Any]) -> str:
    """What each is, for docs/comparison.md."""
    rows = [
        (peer["name"].partition(" (2")[0], peer["kind"], peer["network"], peer["root"], _receipts(peer))
        for peer in _peers(figures)
        if peer["name"] != "bare"
    ]
    return table(("", "isolation", "network of a job", "root parses", "receipts"), rows)


BLOCKS = {
    ROOT / "README.md": {"claims": claims_block, "comparison": short_block},
    DOCS / "benchmark.md": {"one run": run_block, "aims": aims_block},
    DOCS / "comparison.md": {"measured": measured_block, "kinds": kinds_block},
}


def render() -> dict[Path, str]:
    """Every page with a table of figures."""
    figures = json.loads(FIGURES.read_text())
    pages = {}
    for path, blocks in BLOCKS.items():
        text = path.read_text()
        for name, body in blocks.items():
            text = with_block(text, name, GENERATOR, body(figures))
        pages[path] = text
    return pages


def compact(figures: dict[str, Any]) -> str:
    """JSON with one line for each entry of a table."""
    parts = []
    for key, value in figures.items():
        if isinstance(value, (dict, list)) and key != "machine":
            entries = value.items() if isinstance(value, dict) else ((None, entry) for entry in value)
            lines = [
                ("" if name is None else json.dumps(name) + ": ") + _line(entry) for name, entry in entries
            ]
            opening, closing = "{}" if isinstance(value, dict) else "[]"
            parts.append(f" {json.dumps(key)}: {opening}\n  " + ",\n  ".join(lines) + f"\n {closing}")
        else:
            parts.append(f" {json.dumps(key)}: {_line(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        FIGURES.write_text(compact(reduced(json.loads(Path(sys.argv[1]).read_text()))))
    write(render())
