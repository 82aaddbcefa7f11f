"""The table of languages."""

import os

import pytest

from sandrun_shared import languages
from sandrun_shared.languages import BY_NAME, ENTRYPOINT, EXECUTABLE, LANGUAGES, PROGRAM, Language


def test_every_name_alias_and_extension_is_one_languages() -> None:
    names = [name for language in LANGUAGES for name in (language.name, *language.aliases)]
    extensions = [suffix for language in LANGUAGES for suffix in language.extensions]
    assert len(names) == len({name.lower() for name in names})
    assert len(extensions) == len(set(extensions))
    assert all(suffix.startswith(".") for suffix in extensions)


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_commands(language: Language) -> None:
    """Each names the entrypoint once, and by absolute paths what is not the job's own."""
    steps = [step for step in (language.compiler, language.command) if step]
    assert sum(ENTRYPOINT in word for step in steps for word in step) == 1
    assert all(os.path.isabs(step[0]) or step[0] == f"./{ENTRYPOINT}" for step in steps)
    assert os.path.isabs(language.version[0])
    if language.compiler:
        assert language.command == (PROGRAM,)
        assert language.compiler[language.compiler.index("-o") + 1] == PROGRAM
    assert language.needs == ("" if language.name == EXECUTABLE else steps[0][0])


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_a_piece_of_code_has_a_name_that_tells_its_language(language: Language) -> None:
    told = languages.of_extension(os.path.splitext(language.main)[1])
    assert told == {"bash": "sh", EXECUTABLE: ""}.get(language.name, language.name)


def test_compilers_that_need_more_than_a_name() -> None:
    """Go and Rust are rarely installed where this runs: their commands as their manuals have them."""
    go, rust = BY_NAME["go"], BY_NAME["rust"]
    assert go.compiler == ("/usr/bin/go", "build", "-o", PROGRAM, ENTRYPOINT)
    assert go.version == ("/usr/bin/go", "version")
    assert go.env["GOPROXY"] == "off"
    assert os.path.isabs(go.env["GOCACHE"])
    assert rust.compiler == ("/usr/bin/rustc", "-O", "-o", PROGRAM, ENTRYPOINT)
    assert rust.version == ("/usr/bin/rustc", "--version")
    assert {languages.of_extension(suffix) for suffix in (".go", ".rs")} == {"go", "rust"}


@pytest.mark.parametrize(
    ("path", "head", "language"),
    [
        ("main.py", b"", "python3"),
        ("a/b.js", b"#!/bin/sh\n", "node"),
        ("run.sh", b"#!/bin/bash\n", "bash"),  # .sh says only that it is a shell
        ("run.sh", b"", "sh"),
        ("main", b"\xef\xbb\xbf#!/usr/bin/env node\n", "node"),
        ("main.py", b"\x7fELF", EXECUTABLE),
        ("main", b"", ""),
        (".js", b"", ""),
    ],
)
def test_what_a_file_tells(path: str, head: bytes, language: str) -> None:
    assert languages.of_file(path, head) == language


def test_code_that_comes_without_a_word() -> None:
    assert languages.DEFAULT in BY_NAME


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *(("Python", "python3"), ("PYTHON3", "python3"), ("py", "python3"), ("JavaScript", "node")),
        *(
            ("NodeJS", "node"),
            ("Node.js", "node"),
            ("TypeScript", "TypeScript"),
            ("r", "Rscript"),
            ("R", "Rscript"),
        ),
        *(
            ("rscript", "Rscript"),
            ("C++", "cpp"),
            ("CPP", "cpp"),
            ("Golang", "go"),
            ("BASH", "bash"),
            ("Rb", "ruby"),
        ),
        *(("python2", "python2"), ("python3.11", "python3.11"), ("", "")),  # another one is not that one
    ],
)
def test_names_in_whatever_case(name: str, language: str) -> None:
    assert languages.canonical(name) == language


@pytest.mark.parametrize(
    ("head", "language"),
    [
        (b"\xef\xbb\xbf#!/bin/bash\n", "bash"),
        (b"#!/usr/bin/Rscript\n", "Rscript"),
        (b"#!/usr/bin/python3.12\n", "python3"),
        (b"#!/usr/bin/Python3\n", ""),  # which is not there
        (b"\xef\xbb\xbf\x7fELF", ""),
        (b"\xef\xbb\xbf\xef\xbb\xbf#!/bin/sh\n", ""),
    ],
)
def test_what_the_first_line_tells(head: bytes, language: str) -> None:
    assert languages.of_head(head) == language
