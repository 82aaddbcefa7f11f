"""What a server refuses, in the words of the command line; and what the command says of mistakes in using it."""

import json
from typing import Any

import click
import pytest

from sandrun_client import ConnectionFailed, Fault, InvalidRequest, RateLimited
from sandrun_client.cli import failures
from sandrun_client.cli.failures import Faulty

HAS: dict[str, Any] = {
    "limits": {"max_memory_mb": 2048, "max_timeout": 3600},
    "interpreters": ["python3", "node", "ruby"],
    "environments": ["default", "ml-basic"],
}


def refused(field: str, detail: str) -> InvalidRequest:
    return InvalidRequest(
        400, "Invalid request", f"The manifest is not valid: {detail}", errors=[Fault(f"/{field}", detail)]
    )


@pytest.mark.parametrize(
    ("field", "detail", "told"),
    [
        (
            "memory_mb",
            "memory_mb: Input should be greater than or equal to 16",
            "memory must be between 16 and 2048 MB",
        ),
        ("memory_mb", "'memory_mb' may be at most 2048 MiB.", "memory must be between 16 and 2048 MB"),
        (
            "timeout",
            "'timeout' may be at most 3600 seconds.",
            "timeout must be above 0 and at most 3600 seconds",
        ),
        ("language", "unknown field 'language'", "unknown field 'language'. Did you mean 'interpreter'?"),
        (
            "enviroment",
            "unknown field 'enviroment'",
            "unknown field 'enviroment'. Did you mean 'environment'?",
        ),
        (
            "environment",
            "There is no environment 'ml-basc'.",
            "There is no environment 'ml-basc'. Did you mean 'ml-basic'?",
        ),
        (
            "interpreter",
            "The interpreter 'python3.12' is not installed here.",
            "The interpreter 'python3.12' is not installed here. Did you mean 'python3'?",
        ),
        (
            "interpreter",
            "The interpreter 'rubby' is not.",
            "The interpreter 'rubby' is not. Did you mean 'ruby'?",
        ),
        ("interpreter", "It does not tell: name it in 'interpreter'.", "It does not tell: use --lang."),
    ],
)
def test_refusals(field: str, detail: str, told: str) -> None:
    error = refused(field, detail)
    assert failures.reason_of(Faulty(error, **HAS)) == told


def test_refusals_without_an_answer_to_what_there_is() -> None:
    nothing = Faulty(refused("memory_mb", "memory_mb: ..."), limits={}, interpreters=(), environments=())
    assert failures.reason_of(nothing) == "memory must be at least 16 MB"


def test_json_has_the_words_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    error = RateLimited(429, "Rate limit exceeded", "CPU quota exhausted", retry_after=59)
    assert failures.tell(error, as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": "Rate limit exceeded",
        "reason": "CPU quota exhausted",
        "retry_after": 59,
        "status": 429,
    }
    assert "CPU quota exhausted. Try again in 59 s, at " in captured.err


def test_a_mistake_of_ours_is_not_told_as_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert not failures.tell(KeyError("x"), as_json=True)
    assert capsys.readouterr().out == ""


def test_errors_of_the_system_have_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.tell(FileNotFoundError(2, "No such file or directory", "a.py"), as_json=False)
    assert capsys.readouterr().err == "sandrun: a.py: no such file or directory\n"


@pytest.mark.parametrize(
    ("host", "sent", "told"),
    [
        ("localhost", False, "Is it running? Start it with: sudo sandrun up; or set SANDRUN_URL"),
        ("run.test", False, "Is it running? The address is that of SANDRUN_URL"),
        ("localhost", True, ""),
    ],
)
def test_the_way_out_where_nobody_answers(host: str, sent: bool, told: str) -> None:
    found = failures.way_out(ConnectionFailed("x", sent=sent, host=host))
    assert told in found
    assert bool(found) is bool(told)


def test_a_wrong_command_line_names_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.tell(click.UsageError("No."), as_json=False)
    assert capsys.readouterr().err == "sandrun: No. `sandrun --help` tells more.\n"
