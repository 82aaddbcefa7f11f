"""boot.py's text, and the modules that are sent with it."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_executor.sandboxes import zygote
from sandrun_sandbox import boot, layout

LISTS = {
    name: getattr(zygote, name)
    for name in ("_MODULES", "_IMAGE_MODULES", "_PREVIEW_MODULES", "_PRELOAD_MODULES", "_UNSAFE_MODULES")
}
KNOWN = {name for names in LISTS.values() for name in names}
TEXT = Path(boot.__file__).read_text()


def run(program: str, flags: str = "-IS") -> set[str]:
    """Run the program in the system's interpreter, which cannot import our modules; returns its output."""
    command = [layout.PYTHON, flags, "-"]
    done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return set(done.stdout.split())


def imported(text: str) -> Iterator[str]:
    """List our modules that a text imports at its top level."""
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.ImportFrom):
            names = [f"{statement.module}.{alias.name}" for alias in statement.names]
            modules = {name if name in KNOWN else str(statement.module) for name in names}
            yield from (name for name in modules if name.startswith("sandrun_"))


def missing(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """List each module with an import that does not precede it."""
    found = []
    for place, name in enumerate(names):
        found += [(name, other) for other in imported(zygote._text_of(name)) if other not in names[:place]]
    return found


@pytest.mark.parametrize("name", LISTS)
def test_each_module_finds_what_it_imports(name: str) -> None:
    assert missing(LISTS[name]) == []
    assert len(set(LISTS[name])) == len(LISTS[name])


def test_a_list_that_lacks_a_module_or_has_it_too_late_is_seen() -> None:
    names = zygote._IMAGE_MODULES
    assert missing(names[1:])
    assert missing((*names[1:], names[0]))


def test_a_fresh_interpreter_has_what_this_imports() -> None:
    assert run(TEXT + "\nprint(*sys.modules)", "-I") == run("import sys\nprint(*sys.modules)", "-I")


def test_modules_lie_in_packages_and_keep_their_code() -> None:
    modules = (
        ("outer", None),
        ("outer.inner", "VALUE = 1"),
        ("outer.other", "from outer.inner import VALUE"),
    )
    look = "from outer import other, inner\nprint(other.VALUE, type(inner.code).__name__, 'outer' in sys.modules)"
    assert run(f"{TEXT}\nload({modules!r})\n{look}") == {"1", "code", "True"}


def test_the_zygotes_modules_import_little() -> None:
    """Each additional module is memory that every fork must handle."""
    loaded = run(f"{TEXT}\nload({zygote._modules(zygote._MODULES)!r})\nprint(*sys.modules)")
    assert "sandrun_sandbox.python.run_python" in loaded
    assert not loaded & {"typing", "re", "enum", "collections", "functools", "contextlib"}
