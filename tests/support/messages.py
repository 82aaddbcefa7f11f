"""What the product says: the texts of its sources, with … for what is put into them."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOLE = "…"


def texts_of(source: str) -> list[str]:
    """The string literals of a Python source; those that are put together have a … for each value."""
    found: list[str] = []
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.JoinedStr):
            found.append("".join(_part(value) for value in node.values))
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value.replace("{}", HOLE))
        todo += reversed(list(ast.iter_child_nodes(node)))
    return found


def _part(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else HOLE


@cache
def spoken() -> str:
    """All texts of the Python sources, one after the other, and the sources of scripts and the page."""
    texts = []
    for folder in ("api", "executor", "shared"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            texts += texts_of(path.read_text())
    scripts = [*(ROOT / "deploy").glob("*.sh"), *(ROOT / "api/sandrun_api/web/static/assets").glob("*.js")]
    return "\n".join([*texts, *(path.read_text() for path in scripts)])
