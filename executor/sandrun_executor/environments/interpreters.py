"""The languages of this machine, their versions, and how the sandbox runs them.

Root looks for the programs and runs none of them: a helper asks them for their versions as the api's user.
If that user lies, the result is a wrong version number, for which packages are then installed.
"""

import logging
import os
from collections.abc import Iterable
from typing import Annotated

import msgspec

from sandrun_executor import helper_process
from sandrun_shared.languages import LANGUAGES, Language
from sandrun_shared.protocol import Interpreter

ASK = helper_process.command("sandrun_helpers.versions")
ASK_SECONDS = 30.0  # the helper gives each program 20
_Answer = list[Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_.+-]{0,40}\Z")]]
_log = logging.getLogger("sandrun.executor")


async def installed(ids: tuple[int, int], table: Iterable[Language] = LANGUAGES) -> dict[str, Interpreter]:
    """Find the installed languages and their versions, "" if unknown; ids are those of the api's user."""
    found = [language for language in table if not language.needs or os.access(language.needs, os.X_OK)]
    versions = await _versions(found, ids)
    return {
        language.name: Interpreter(language.name, version)
        for language, version in zip(found, versions, strict=True)
    }


async def _versions(found: list[Language], ids: tuple[int, int]) -> list[str]:
    question = msgspec.json.encode([language.version for language in found]).decode()
    try:
        answer = await helper_process.ask([*ASK, question], ids, seconds=ASK_SECONDS)
        versions = msgspec.json.decode(answer, type=_Answer)
        if len(versions) == len(found):
            return versions
        problem = "it answered for others"
    except TimeoutError:
        problem = "it does not answer"
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = str(error)
    _log.error("the versions of interpreters are unknown, because the helper failed: %s", problem)
    return [""] * len(found)
