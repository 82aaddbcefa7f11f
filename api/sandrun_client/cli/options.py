"""Options that several commands share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from sandrun_client.aio import AsyncSandrunClient
from sandrun_client.cli import terminal
from sandrun_client.client import SandrunClient
from sandrun_client.connecting import DEFAULT_URL
from sandrun_shared import languages

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Server:
    """Which server to ask, and how to answer the person."""

    url: str | None
    verify_with: str | None
    json: bool

    def client(self) -> SandrunClient:
        """A client of it."""
        return SandrunClient(self.url, verify_with=self.verify_with)

    def async_client(self) -> AsyncSandrunClient:
        """An asynchronous client of it."""
        return AsyncSandrunClient(self.url, verify_with=self.verify_with)


def _variables(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    pairs = [tuple(value.split("=", 1)) for value in values]
    if not all(len(pair) == 2 and pair[0] for pair in pairs):
        raise click.BadParameter("write NAME=VALUE.", ctx, param)
    return tuple((name, text) for name, text in pairs)


def _languages(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return sorted(name for name in languages.NAMES if name.startswith(incomplete))


def server_options(function: F) -> F:
    """--url, --verify-with, --json, --quiet: the command gets them as `server`."""

    def wrapped(url: str | None, verify_with: str | None, as_json: bool, quiet: bool, **rest: Any) -> Any:
        terminal.set_quiet(quiet)
        try:
            return function(server=Server(url, verify_with, as_json), **rest)
        except BrokenPipeError:
            raise terminal.ReaderGone from None

    wrapped.__name__, wrapped.__doc__ = function.__name__, function.__doc__
    # Options that were put on the function by the decorators below this one.
    wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="No messages but errors."),
        click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document."),
        click.option(
            "--verify-with", metavar="WORKER", help="Worker id that must have signed what comes back."
        ),
        click.option("--url", metavar="URL", help=f"The server [default: $SANDRUN_URL, then {DEFAULT_URL}]."),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def job_options(function: F) -> F:
    """What a job is given: the command gets them as `job`, a dictionary without what was not said."""

    def wrapped(**given: Any) -> Any:
        job = {
            "interpreter": given.pop("lang"),
            "environment": given.pop("environment"),
            "env": dict(given.pop("env")),
            "outputs": list(given.pop("pattern")),
            "timeout": given.pop("timeout"),
            "memory_mb": given.pop("memory"),
            "cpu_seconds": given.pop("cpu_seconds"),
            "buffered": given.pop("buffered"),
            "priority": "batch" if given.pop("batch") else None,
            "encrypt_to": given.pop("encrypt_to"),
        }
        stdin = given.pop("stdin")
        if stdin is not None:
            job["stdin"] = stdin.read().decode("utf-8", "surrogateescape")
        return function(
            job={key: value for key, value in job.items() if value not in (None, {}, [])}, **given
        )

    wrapped.__name__, wrapped.__doc__ = function.__name__, function.__doc__
    wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(
        (
            click.option(
                "-l",
                "--lang",
                metavar="NAME",
                shell_complete=_languages,
                help="What runs it, like python, node or bash [default: told by the file's name].",
            ),
            click.option("-e", "--entrypoint", metavar="FILE", help="The file of a folder to run."),
            click.option("--environment", metavar="NAME", help="The environment; `sandrun envs` lists them."),
            click.option(
                "--env",
                multiple=True,
                callback=_variables,
                metavar="NAME=VALUE",
                help="A variable. Repeatable.",
            ),
            click.option("--stdin", type=click.File("rb"), help="What the program reads; - for ours."),
            click.option(
                "--pattern",
                multiple=True,
                help="Which files to keep [default: all that it makes or changes]. Repeatable.",
            ),
            click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS"),
            click.option("--memory", type=click.IntRange(1), metavar="MB"),
            click.option("--cpu-seconds", type=click.FloatRange(0, min_open=True), metavar="SECONDS"),
            click.option(
                "--buffered/--no-buffered",
                default=None,
                help="Let output wait in the program's buffers, or in C, Ruby and Perl neither.",
            ),
            click.option("--batch", is_flag=True, help="Run only when no normal job waits."),
            click.option(
                "--encrypt-to", metavar="KEY", help="Public key that output and files are sealed to."
            ),
            click.option(
                "--exclude", multiple=True, metavar="PATTERN", help="Not sent, as in .gitignore. Repeatable."
            ),
        )
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]
