"""Parts of pages that a program writes: between two comments that name the generator."""

import re
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
_END = "<!-- end of what is generated -->"


def with_block(text: str, name: str, generator: str, body: str) -> str:
    """The page's text with one block replaced; raises ValueError unless it has exactly one of that name."""
    head = f"<!-- {name}: written by docs/{generator} -->"
    pattern = re.compile(re.escape(head) + ".*?" + re.escape(_END), re.DOTALL)
    block = f"{head}\n{body.strip()}\n{_END}"
    changed, count = pattern.subn(lambda _: block, text)
    if count != 1:
        raise ValueError(f"{count} blocks begin with {head}")
    return changed


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], align: str = "") -> str:
    """A table in Markdown; `align` has one letter for each column, r for right."""
    rule = ["--:" if letter == "r" else "---" for letter in align.ljust(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, tuple(rule), *rows))


def write(files: dict[Path, str]) -> None:
    """Write what a generator rendered."""
    for path, text in files.items():
        path.write_text(text)
