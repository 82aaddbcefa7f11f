"""Which of the languages this machine has, in which version, and how the sandbox runs them."""

import os
import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from sandrun_shared.languages import LANGUAGES, Language
from sandrun_shared.protocol import Interpreter

_SECONDS = 20.0
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")
_WORD = re.compile(r"[\w.+-]{1,40}")


def installed(table: Iterable[Language] = LANGUAGES) -> dict[str, Interpreter]:
    """The languages found here with their versions; "" where one does not tell."""
    found = [language for language in table if not language.needs or os.access(language.needs, os.X_OK)]
    with ThreadPoolExecutor(8) as pool:
        versions = pool.map(_version, found)
        return {
            language.name: Interpreter(language.name, version)
            for language, version in zip(found, versions, strict=True)
        }


def _version(language: Language) -> str:
    try:
        answer = subprocess.run(
            language.version,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = answer.stdout + answer.stderr
    match = _VERSION.search(said) or (_WORD.match(said) if answer.returncode == 0 else None)
    return match[0] if match else ""
