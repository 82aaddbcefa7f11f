"""The repository polices itself: linters, types, and what no file may hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("api", "executor", "shared")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# Put together here, so that this file does not hold what it looks for.
FORBIDDEN = [left + right for left, right in (("pypi", ".org"), ("pythonhosted", ".org"), ("/opt/", "pypi"))]
LONGEST_MODULE = 500
# Modules that may be longer, and why cutting them would part what belongs together.
LONGER: dict[str, str] = {}


def module_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}:\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", ".")


def test_everything_is_formatted() -> None:
    run("ruff", "format", "--check", ".")


def test_types_are_complete() -> None:
    run("mypy")


@pytest.mark.parametrize("path", SOURCES, ids=module_id)
def test_module_is_short(path: Path) -> None:
    """A module in LONGER must be too long, so that an entry goes when its reason does."""
    is_long = len(path.read_text().splitlines()) > LONGEST_MODULE
    assert is_long == (module_id(path) in LONGER)


def test_longer_modules_exist_and_have_a_reason() -> None:
    assert LONGER.keys() <= set(map(module_id, SOURCES))
    assert all(LONGER.values())


@pytest.mark.parametrize("path", SOURCES, ids=module_id)
def test_no_assert_as_policy(path: Path) -> None:
    lines = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
    assert lines == []


@pytest.mark.parametrize("path", TESTS, ids=module_id)
def test_no_sleep_in_tests(path: Path) -> None:
    """A call of `sleep` but sleep(0), which yields; programs that run as jobs are strings and may sleep."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    waiting = [call.func for call in calls if [ast.unparse(argument) for argument in call.args] != ["0"]]
    names = {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in waiting}
    assert "sleep" not in names


def test_ctypes_in_one_module() -> None:
    users = {
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name == "ctypes" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "ctypes")
    }
    assert users <= {"linux_unsafe.py", "cpython_unsafe.py"}


def test_no_package_host_is_named() -> None:
    skipped = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    files = (path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.parts))
    named = {str(path.relative_to(ROOT)) for path in files if holds_forbidden(path.read_bytes())}
    assert named == set()


def holds_forbidden(data: bytes) -> bool:
    return any(word.encode() in data for word in FORBIDDEN)
