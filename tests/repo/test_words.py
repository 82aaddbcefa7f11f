"""Phrases that the prose of this repository avoids, with a plainer wording for each."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Texts of others, and this file, which quotes what it looks for.
FOREIGN = ("LICENSE", "api/sandrun_api/web/static/assets/vendor/", "tests/repo/test_words.py")
SKIPPED = re.compile(r"__pycache__|node_modules|dist|site|\.(git|venv|hypothesis|.*_cache)|.*\.egg-info")
# Each phrase and what to write instead. A line break and a comment's mark may stand between two words.
PHRASES = {
    r"(?<!there\s)(?:is|are) none": "say what it is not, or that it is missing",
    "of (?:its|their|his|her|my|our|your|ours|theirs|one's) own": "separate, private, a new …, a … for each",
    "beside": "next to, in the background, in addition to",
    "anew": "again, or the verb with re-",
    "so many": "the number's name: `count` bytes, a number of jobs",
    "whoever": "name the client, the caller, the task",
    "(?:its|their) own words": "its output",
}
_GAP = r"\s+(?:(?:#|//|\*)\s+)?"
_PATTERNS = [
    (re.compile(rf"\b{phrase.replace(' ', _GAP)}\b", re.IGNORECASE), better)
    for phrase, better in PHRASES.items()
]


def texts() -> list[Path]:
    """List the files that are not excepted."""
    files = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    files = [path for path in files if not any(map(SKIPPED.fullmatch, path.parts))]
    return [ROOT / path for path in files if not str(path).startswith(FOREIGN)]


def found_in(text: str) -> list[tuple[int, str, str]]:
    """Find phrases: line, phrase as it stands there, better wording."""
    found = []
    for pattern, better in _PATTERNS:
        for match in pattern.finditer(text):
            if "None" not in match[0]:
                found.append((text.count("\n", 0, match.start()) + 1, match[0], better))
    return found


def test_prose_avoids_these_phrases() -> None:
    faults = []
    for path in texts():
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # not a text
        faults += [
            f"{path.relative_to(ROOT)}:{line}: {phrase!r}: {better}"
            for line, phrase, better in found_in(text)
        ]
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.mark.parametrize(
    "text",
    [
        "an order that is none",
        "in a process of its own",
        "# in a process of\n    # its own",
        "the lock beside it",
        "Whoever waits",
        "after so many\n    seconds",
        "its own words are above",
        "built anew",
    ],
)
def test_a_phrase_is_found(text: str) -> None:
    assert found_in(text)


@pytest.mark.parametrize("text", ["if x is None:", "there is none", "besides", "sanewrap", "its own sandbox"])
def test_plain_english_is_not(text: str) -> None:
    assert not found_in(text)


def test_every_exception_is_there() -> None:
    assert [name for name in FOREIGN if not (ROOT / name).exists()] == []
