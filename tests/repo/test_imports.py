"""The import contracts: in the source (import-linter, AST) and in a running interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sandrun_executor.sandboxes import zygote

ROOT = Path(__file__).parents[2]
WEB = {"fastapi", "starlette", "uvicorn", "pydantic", "httpx", "anyio"}
OURS = {
    "sandrun_admin",
    "sandrun_api",
    "sandrun_client",
    "sandrun_executor",
    "sandrun_helpers",
    "sandrun_sandbox",
    "sandrun_shared",
}


def loaded_by(module: str) -> set[str]:
    """Top-level names in sys.modules of a fresh interpreter that imported the module."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def modules_of_shared(path: Path) -> set[str]:
    """What a file imports of sandrun_shared, by the modules' full names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sandrun_shared"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = (ROOT / "shared" / f"{name.replace('.', '/')}.py").exists()
                names.add(name if is_module else str(node.module))
    return names


def test_contracts_hold() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


def test_executor_loads_no_web_library() -> None:
    assert not loaded_by("sandrun_executor.__main__") & (WEB | {"sandrun_api", "sandrun_client"})


def test_executor_loads_three_libraries() -> None:
    """Root's environment holds these and no other (tests/unit/deploy/test_units.py): none that nobody imports."""
    code = (
        "import sys, sandrun_executor.__main__\n"
        "files = {name: getattr(module, '__file__', None) or '' for name, module in sys.modules.items()}\n"
        "print(*{name.partition('.')[0] for name, file in files.items() if 'site-packages' in file})"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    helpers = {"_cffi_backend", "_sodium", "_distutils_hack", "typing_extensions", "cffi"}
    assert set(done.stdout.split()) - helpers - OURS == {"msgspec", "nacl", "pyseccomp"}


def test_api_loads_no_executor() -> None:
    assert not loaded_by("sandrun_api.__main__, sandrun_admin.cli") & {
        "sandrun_executor",
        "pyseccomp",
    }


def test_shared_loads_neither() -> None:
    loaded = loaded_by("sandrun_shared.framing, sandrun_shared.settings, sandrun_shared.orders")
    assert not loaded & (OURS - {"sandrun_shared"} | WEB)


def test_client_loads_nothing_of_the_server() -> None:
    loaded = loaded_by("sandrun_client.cli.main")
    assert not loaded & (OURS - {"sandrun_client"} | WEB - {"httpx", "anyio"} | {"mcp", "msgspec", "nacl"})


def test_client_names_nothing_of_the_server() -> None:
    """Not even inside a function: it finds the server's commands by their entry point."""
    sources = (ROOT / "api" / "sandrun_client").rglob("*.py")
    used = set().union(*(imported_names(path) for path in sources)) & OURS
    assert used <= {"sandrun_client"}


def test_sandbox_code_needs_only_the_standard_library() -> None:
    """It is loaded by any interpreter an environment brings; linux_unsafe and the archives' reader travel with it."""
    carried = {name for name in zygote._MODULES if name.startswith("sandrun_shared.")}
    sources = [*(ROOT / "executor" / "sandrun_sandbox").rglob("*.py")]
    sources += [ROOT / "shared" / f"{name.replace('.', '/')}.py" for name in carried]
    used = set().union(*(imported_names(path) for path in sources))
    ours = {"sandrun_sandbox", "sandrun_shared"}
    assert used <= sys.stdlib_module_names | ours | {p.stem for p in sources}
    shared = set().union(*(modules_of_shared(path) for path in sources))
    assert carried
    assert shared <= carried
