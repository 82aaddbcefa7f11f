"""Generated pages are current; claims and steps have tests; each page is listed once."""

import ast
import copy
import fnmatch
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.docs import program
from support.probes import PROBES

ROOT = Path(__file__).parents[2]
figures = program("generate_figures")
sandbox = program("generate_sandbox")
written = program("written")
site = program("build_site")
FIGURES = json.loads(figures.FIGURES.read_text())
CLAIMS = figures.claims(FIGURES)
ROWS = {**sandbox.BEFORE, **sandbox.STEPS, **sandbox.AFTER}


def stands(held: str) -> bool:
    """Whether there is such a file and, after `::`, a function of such a name in it."""
    path, _, function = held.partition("::")
    if not (ROOT / path).is_file():
        return False
    tree = ast.parse((ROOT / path).read_text())
    names = {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    return not function or bool(fnmatch.filter(names, function))


@pytest.mark.parametrize(
    "name", ["generate_figures", "generate_sandbox", "generate_api", "generate_manifest"]
)
def test_generated_parts_are_current(name: str) -> None:
    for path, text in program(name).render().items():
        assert path.read_text() == text, f"run python docs/{name}.py"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_a_claim_has_what_holds_it(claim: Any) -> None:
    assert claim.held
    assert [held for held in claim.held if not stands(held)] == []


@pytest.mark.parametrize("held", ["tests/repo/test_pages.py::test_nothing", "tests/repo/test_no_such.py"])
def test_what_does_not_exist_holds_nothing(held: str) -> None:
    assert not stands(held)


@pytest.mark.parametrize("subject", ["run python", "executor python"])
@pytest.mark.parametrize("kind", ["back to back", "after idleness"])
def test_another_figure_is_another_page(subject: str, kind: str) -> None:
    other = copy.deepcopy(FIGURES)
    other["latency"][subject][kind][1] += 0.01
    assert figures.claims_block(other) not in (ROOT / "README.md").read_text()
    assert figures.claims_block(FIGURES) in (ROOT / "README.md").read_text()


def test_figures_come_from_a_result_of_the_benchmark() -> None:
    """Of its whole result only what pages show, with ratios of the values before they are rounded."""

    def taken(p50: float) -> dict[str, dict[str, float]]:
        return {kind: {"p50_ms": p50, "p99_ms": 99.0, "n": 3} for kind in ("back to back", "after idleness")}

    result = {
        "date": "2027-01-02",
        "machine": {"cpu": "a", "cores": 2, "kernel": "7.0", "memory_mib": 1, "load_average": [0, 0, 0]},
        "rounds": 20,
        "latency": {name: taken(p50) for name, p50 in (("bare python", 16.04), ("run python", 8.06))},
        "jobs_per_second": {
            name: {"1": 80.4, "2": 132.4, "8": 139.6} for name in ("bare python", "run python")
        },
        "log_latency": {"1 subscriber": {"p50_ms": 3.0, "p99_ms": 6.66}},
        "request_latency": {},
        "recovery": {},
        "most_ms": {"log_latency": 50, "request_latency": 50, "recovery": 3000},
        "aims": [{"name": "an aim", "is": 0.50249, "to_be": "≤ 0.7", "met": True}],
    }
    got = figures.reduced(result)
    assert got["latency"]["run python"]["after idleness"] == [8.06, 0.502]
    assert got["jobs_per_second"]["run python"] == {"2": 132, "8": 140}
    assert got["p99_ms"] == {"from printed to read, 1 subscriber": [6.66, 50]}
    assert got["aims"] == [["an aim", 0.502, "≤ 0.7", True]]
    assert json.loads(figures.compact(got)) == got
    assert "load_average" not in figures.compact(got)
    assert "2027-01-02, 2 cores of a, Linux 7.0" in figures.run_block(got)


@pytest.mark.parametrize(
    "text", ["none", "<!-- a: written by docs/b.py -->\n<!-- end of what is generated -->\n" * 2]
)
def test_a_page_without_exactly_one_place_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="blocks begin with"):
        written.with_block(text, "a", "b.py", "body")


def test_every_step_of_the_sandbox_has_a_row() -> None:
    steps = sandbox.steps()
    assert {"parent_death", "enter_root", "session", "seccomp"} <= set(steps)
    assert set(steps) == set(sandbox.STEPS)


def test_every_namespace_that_the_sandbox_makes_has_a_row() -> None:
    sources = [path for path in sandbox.SANDBOX.glob("*.py") if path.name != "linux_unsafe.py"]
    made = set().union(*(re.findall(r"CLONE_NEW[A-Z]+", path.read_text()) for path in sources))
    calls = " ".join(row.call for row in ROWS.values())
    assert len(made) == 8
    assert [name for name in sorted(made) if name not in calls] == []


@pytest.mark.parametrize("name", ROWS)
def test_a_step_has_the_test_that_fails_without_it(name: str) -> None:
    row = ROWS[name]
    assert bool(row.held) != (name in sandbox.UNHELD)
    for held in row.held:
        if "::" in held:
            assert stands(f"tests/{held}")
        else:
            assert {name, *row.layers} & set(PROBES[held].without)


def test_every_layer_that_a_probe_needs_off_is_in_the_table() -> None:
    shown = {layer for name, row in ROWS.items() for layer in (name, *row.layers)}
    assert {layer for probe in PROBES.values() for layer in probe.without} <= shown


def test_there_are_four_doors() -> None:
    assert list(site.doors()) == ["Use it", "Operate it", "Trust it", "Change it"]


def test_each_page_is_behind_one_door() -> None:
    behind = Counter(path for entries in site.doors().values() for _, path in entries)
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")} - {"docs/index.md"}
    assert set(behind) == pages | {"CHANGELOG.md", "SECURITY.md"}
    assert [path for path, times in behind.items() if times > 1] == []
