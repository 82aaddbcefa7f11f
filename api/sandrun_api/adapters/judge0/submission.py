"""A submission as a client of Judge0 sends it, checked field by field."""

import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from sandrun_api.adapters.foreign import from_base64
from sandrun_api.adapters.judge0.languages import Language
from sandrun_api.adapters.judge0.limits import Bound
from sandrun_shared.languages import code_for

MAX_ARGUMENTS = 8192  # characters: splitting them takes time
Faults = dict[str, list[str]]


class InvalidSubmission(Exception):
    """A submission that cannot be taken: what is wrong, by field."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(len(faults))  # never the faults: they may quote the client
        self.faults = faults


@dataclass
class Submission:
    """What was asked; texts as their bytes, times in seconds, sizes in KiB."""

    language: Language
    source_code: bytes
    stdin: bytes | None
    expected_output: bytes | None
    additional_files: bytes | None
    arguments: tuple[str, ...]
    numbers: dict[str, float]
    redirect_stderr_to_stdout: bool
    plain: dict[str, Any] = field(default_factory=dict)  # given back as they came
    is_right: bool | None = None  # known once the job has ended

    @property
    def program(self) -> bytes:
        """The source code as its language reads it."""
        return code_for(self.language.interpreter, self.source_code)

    @property
    def size_bytes(self) -> int:
        """What keeping it costs."""
        texts = (self.source_code, self.stdin, self.expected_output, self.additional_files)
        return sum(len(text) for text in texts if text is not None)


_SHELL = re.compile(r"[$&;<>|`]")  # Judge0 takes these away before its shell splits the arguments
_NEVER = {
    "callback_url": "callbacks are not allowed",
    "enable_network": "this option cannot be enabled",
    "enable_per_process_and_thread_time_limit": "this option cannot be enabled",
    "enable_per_process_and_thread_memory_limit": "this option cannot be enabled",
}


def parse(
    body: dict[str, Any], *, encoded: bool, languages: dict[int, Language], bounds: dict[str, Bound]
) -> Submission:
    """The submission in a JSON object. Raises InvalidSubmission with every fault."""
    faults: Faults = {}
    language = _language(body.get("language_id"), languages, faults)
    texts = {
        name: _text(body, name, faults, encoded=encoded)
        for name in ("source_code", "stdin", "expected_output")
    }
    extra = _text(body, "additional_files", faults, encoded=True) or None
    _check_required(language, texts["source_code"], extra, faults)
    numbers = {name: _number(body.get(name), name, bound, faults) for name, bound in bounds.items()}
    for name, reason in _NEVER.items():
        if body.get(name) not in (None, False, ""):
            faults[name] = [reason]
    arguments = _arguments(body.get("command_line_arguments"), faults)
    redirect = body.get("redirect_stderr_to_stdout")
    if redirect not in (None, True, False):
        faults["redirect_stderr_to_stdout"] = ["must be true or false"]
    if faults or language is None:
        raise InvalidSubmission(faults)
    return Submission(
        language=language,
        source_code=texts["source_code"] or b"",
        stdin=texts["stdin"],
        expected_output=texts["expected_output"],
        additional_files=extra,
        arguments=arguments,
        numbers=numbers,
        redirect_stderr_to_stdout=bool(redirect),
        plain={"command_line_arguments": body.get("command_line_arguments")},
    )


def _language(value: Any, languages: dict[int, Language], faults: Faults) -> Language | None:
    if value in (None, ""):
        faults["language_id"] = ["can't be blank"]
        return None
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value) else value
    language = languages.get(number) if isinstance(number, int) and not isinstance(number, bool) else None
    if language is None:
        shown = number if isinstance(number, int) else "so named"
        faults["language_id"] = [f"language with id {shown} doesn't exist"]
    return language


def _check_required(
    language: Language | None, source: bytes | None, extra: bytes | None, faults: Faults
) -> None:
    is_project = language is not None and language.source_file is None
    if is_project and source:
        faults["source_code"] = ["should be blank for a multi-file program"]
    if is_project and not extra:
        faults.setdefault("additional_files", ["can't be blank"])
    if not is_project and not source:
        faults.setdefault("source_code", ["can't be blank"])


def _text(body: dict[str, Any], name: str, faults: Faults, *, encoded: bool) -> bytes | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        faults[name] = ["is not a string"]
        return None
    data = from_base64(value) if encoded else value.encode()
    if data is None:
        faults[name] = ["is not valid Base64"]
    return data


def _number(value: Any, name: str, bound: Bound, faults: Faults) -> float:
    if value is None:
        return bound.default
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,9})?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        faults[name] = ["is not a number"]
        return bound.default
    if fault := bound.fault(value):
        faults[name] = [fault]
    elif bound.whole and value != int(value):
        faults[name] = ["must be an integer"]
    return value


def _arguments(value: Any, faults: Faults) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, str):
        faults["command_line_arguments"] = ["is not a string"]
        return ()
    if len(value) > MAX_ARGUMENTS:
        faults["command_line_arguments"] = [f"is too long (maximum is {MAX_ARGUMENTS} characters)"]
        return ()
    try:
        return tuple(shlex.split(_SHELL.sub("", value)))
    except ValueError:
        faults["command_line_arguments"] = ["has a quote that is never closed"]
        return ()
