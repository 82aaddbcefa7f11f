"""docs/troubleshooting.md quotes what the product says, word for word."""

import re
from pathlib import Path

import pytest

from sandrun_shared.jobs import Verdict
from support.messages import HOLE, spoken, texts_of

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
PROGRAMS = "What a program prints"  # run by tests/system/test_examples.py
QUOTED = re.compile(r"`` ?(.+?) ?``(?!`)|`([^`]+)`")


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def rows(text: str) -> list[list[str]]:
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in cells] for cells in lines]


def quoted(cell: str) -> list[str]:
    return [first or second for first, second in QUOTED.findall(cell)]


def messages() -> list[str]:
    """The first column of every table, and the second where the first has verdicts."""
    found = []
    for name, text in sections().items():
        if name == PROGRAMS:
            continue
        for first, second, *_ in rows(text):
            words = quoted(first)
            is_verdict = bool(words) and set(words) <= set(Verdict)
            found += (
                quoted(second) if is_verdict else [] if first in ("message", "verdict", "`detail`") else words
            )
    return found


def test_there_are_messages() -> None:
    assert len(messages()) > 60


@pytest.mark.parametrize("message", messages())
def test_a_message_is_what_the_product_says(message: str) -> None:
    said = message.strip(HOLE)
    assert len(said) > 8
    assert said in spoken()


def test_what_nobody_says_is_found() -> None:
    assert "This server is on fire" + "; try again soon." not in spoken()


def test_every_verdict_has_a_remedy() -> None:
    first = [word for row in rows(sections()["How a job ended"]) for word in quoted(row[0])]
    assert set(Verdict) - {Verdict.ok} <= set(first)


def test_values_are_holes() -> None:
    assert texts_of("print(f'a {1 + 1:>3} b' 'c' f'{x!r}', 'd' 'e {}')") == ["a … bc…", "de …"]
