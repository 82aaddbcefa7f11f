"""The installer, which cannot import our modules, so it repeats constants of theirs."""

import ast
import sys
from pathlib import Path

from sandrun_helpers import install, messages
from sandrun_sandbox import layout


def test_its_exit_codes_are_those_that_root_knows() -> None:
    for name in ("FAILED", "REFUSED", "NO_SPACE", "UNREACHABLE"):
        assert getattr(install, name) == getattr(messages, name)


def test_its_folders_are_those_of_the_sandbox() -> None:
    for name in ("INSTALLED", "TOOLS", "SCRATCH", "TEMPORARY"):
        assert getattr(install, name) == getattr(layout, name)


def test_it_stands_alone() -> None:
    tree = ast.parse(Path(install.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
