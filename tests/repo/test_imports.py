"""The import contracts: in the source (import-linter, AST) and in a running interpreter."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from sandrun_executor.sandboxes import zygote
from support.root_process import FOLDER, OF_THE_HELPERS, OF_THE_SANDBOX, lines_of, loaded_by, wrong

ROOT = Path(__file__).parents[2]
MOST_LINES = 5500  # of code that runs as root, without shared/
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


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def modules_of(path: Path, package: str, folder: Path) -> set[str]:
    """What a file imports of a package in this folder, by the modules' full names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if f"{alias.name}.".startswith(f"{package}.")}
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = (folder / name.replace(".", "/")).with_suffix(".py").exists()
                names.add(name if is_module else str(node.module))
    return names


def tops(names: Iterable[str]) -> set[str]:
    """Their top-level packages."""
    return {name.partition(".")[0] for name in names}


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
    assert not tops(loaded_by("sandrun_executor.__main__")) & (WEB | {"sandrun_api", "sandrun_client"})


def test_root_loads_no_code_of_jobs_or_helpers_and_no_parser_of_what_strangers_write() -> None:
    """What a daemon has loaded that has run jobs says tests/system/test_root_process.py."""
    assert wrong(loaded_by("sandrun_executor.__main__", "sandrun_executor.daemon")) == set()


def test_root_names_no_code_of_jobs_or_helpers() -> None:
    """Not even inside a function, nor under TYPE_CHECKING."""
    named = set()
    for path in (FOLDER / "sandrun_executor").rglob("*.py"):
        named |= modules_of(path, "sandrun_sandbox", FOLDER) | modules_of(path, "sandrun_helpers", FOLDER)
    assert named <= OF_THE_SANDBOX | OF_THE_HELPERS
    assert "sandrun_sandbox.linux_unsafe" in named


def test_root_code_is_as_short_as_the_docs_say() -> None:
    """To the next hundreds: docs/architecture.md need not change with each line."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    found = re.search(r"fewer\s+than\s+([\d,]+)\s+lines\s+of\s+code", text)
    assert found is not None
    stated = int(found[1].replace(",", ""))
    assert stated <= MOST_LINES
    assert stated - 200 < lines_of(loaded_by("sandrun_executor.__main__", "sandrun_executor.daemon")) < stated


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
    assert not tops(loaded_by("sandrun_api.__main__", "sandrun_admin.cli")) & {
        "sandrun_executor",
        "pyseccomp",
    }


def test_shared_loads_neither() -> None:
    loaded = tops(loaded_by("sandrun_shared.framing", "sandrun_shared.settings", "sandrun_shared.orders"))
    assert not loaded & (OURS - {"sandrun_shared"} | WEB)


def test_client_loads_nothing_of_the_server() -> None:
    """Nor what only receipts and keys need: that is slow to load, and each `sandrun FILE` would wait for it."""
    loaded = tops(loaded_by("sandrun_client.cli.main"))
    unwanted = {"mcp", "msgspec", "nacl"}
    assert not loaded & (OURS - {"sandrun_client", "sandrun_shared"} | WEB - {"httpx", "anyio"} | unwanted)


def test_client_names_nothing_of_the_server() -> None:
    """Not even inside a function: it finds the server's commands by their entry point."""
    sources = (ROOT / "api" / "sandrun_client").rglob("*.py")
    used = set().union(*(imported_names(path) for path in sources)) & OURS
    assert used <= {"sandrun_client", "sandrun_shared"}


def test_sandbox_code_needs_only_the_standard_library() -> None:
    """It is loaded by any interpreter an environment brings; linux_unsafe and the archives' reader travel with it."""
    carried = {name for name in zygote._MODULES if name.startswith("sandrun_shared.")}
    sources = [*(ROOT / "executor" / "sandrun_sandbox").rglob("*.py")]
    sources += [ROOT / "shared" / f"{name.replace('.', '/')}.py" for name in carried]
    used = set().union(*(imported_names(path) for path in sources))
    ours = {"sandrun_sandbox", "sandrun_shared"}
    assert used <= sys.stdlib_module_names | ours | {p.stem for p in sources}
    shared = set().union(*(modules_of(path, "sandrun_shared", ROOT / "shared") for path in sources))
    assert carried
    assert shared <= carried


def modules_imported(path: Path) -> set[str]:
    """The modules and, as it cannot tell them apart, the names that a file imports, in full."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_adapter_imports_a_route_module() -> None:
    """What adapters need of a submission is in `jobs/submission.py`; routes are for the application alone."""
    api = ROOT / "api"
    routes = {
        ".".join(path.relative_to(api).with_suffix("").parts)
        for path in (api / "sandrun_api").rglob("*.py")
        if any(
            isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("APIRouter(")
            for node in ast.parse(path.read_text()).body
        )
    }
    adapters = {name for name in routes if name.startswith("sandrun_api.adapters.")}
    assert {"sandrun_api.jobs.run_routes", "sandrun_api.jobs.routes"} <= routes - adapters
    for path in (api / "sandrun_api" / "adapters").rglob("*.py"):
        assert not modules_imported(path) & (routes - adapters), path
