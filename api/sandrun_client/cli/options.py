"""Options that several commands share."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sandrun_client import connecting
from sandrun_client.cli import failures, terminal
from sandrun_client.cli.programs import Asked
from sandrun_client.connecting import DEFAULT_URL
from sandrun_client.drivers import SyncDriver
from sandrun_client.errors import InvalidRequest, SandrunError
from sandrun_client.exchange import Policy, Request, ask
from sandrun_shared import commandline, languages

if TYPE_CHECKING:
    from sandrun_client.client import SandrunClient

F = TypeVar("F", bound=Callable[..., Any])

ASKED_SECONDS = 30.0  # that a server may be silent
ASIDE_SECONDS = 2.0  # likewise, where its answer only makes something nicer


@dataclass(frozen=True)
class Server:
    """Which server to ask, and how to answer the person."""

    url: str | None
    verify_with: str | None
    json: bool

    def policy(self) -> Policy:
        """How patient to be, with every wait told."""
        return Policy(verify_with=self.verify_with, on_wait=terminal.say_waiting)

    @contextlib.contextmanager
    def driver(self, seconds: float = ASKED_SECONDS) -> Iterator[SyncDriver]:
        """What does operations at it: with the standard library alone where it is on this machine."""
        url = connecting.base_url(self.url)
        if connecting.is_plain(url):
            from sandrun_client.http_plain import PlainTransport  # noqa: PLC0415

            yield SyncDriver(PlainTransport(url, seconds, {"User-Agent": connecting.USER_AGENT}))
            return
        import httpx  # noqa: PLC0415 - slow to load

        from sandrun_client.http_httpx import HttpxTransport  # noqa: PLC0415

        with httpx.Client(**connecting.http_options(url, seconds, True, {})) as http:
            yield SyncDriver(HttpxTransport(http))

    def client(self) -> "SandrunClient":
        """A client of it."""
        from sandrun_client.client import SandrunClient  # noqa: PLC0415 - slow to load

        return SandrunClient(self.url, verify_with=self.verify_with, on_wait=terminal.say_waiting)

    def aside(self, path: str) -> dict[str, Any]:
        """What a route says, {} if it does not say it soon."""
        policy = Policy(retries=0, on_wait=lambda _: None)
        try:
            with self.driver(ASIDE_SECONDS) as driver:
                request = Request("GET", path, headers={"Accept": "application/json"})
                return driver.run(ask(policy, request)).document()
        except SandrunError:
            return {}

    def explained(self, error: InvalidRequest) -> SandrunError:
        """The refusal of a job, with what the server has instead."""
        pointers = {item.pointer for item in error.errors}
        if not pointers & failures.EXPLAINED:
            return error
        server = self.aside("/")
        names = self.aside("/environments").get("templates") if "/environment" in pointers else None
        return failures.Faulty(
            error,
            limits=server.get("limits") or {},
            interpreters=tuple(server.get("interpreters") or ()),
            environments=tuple(names or ()),
        )


def _environments(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    try:
        found = Server(ctx.params.get("url"), None, True).aside("/environments").get("templates")
    except SandrunError:
        return []
    return [str(name) for name in found or () if str(name).startswith(incomplete)]


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
        server = Server(url, verify_with, as_json)
        try:
            return function(server=server, **rest)
        except BrokenPipeError:
            raise terminal.ReaderGone from None
        except InvalidRequest as error:
            raise server.explained(error) from error

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
    """What a job is given: the command gets them as `job`, a dictionary without what was not said.

    What says which program it is comes as `asked`.
    """

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
        asked = Asked(
            file=given.pop("file"),
            args=given.pop("args"),
            code=given.pop("code"),
            entrypoint=given.pop("entrypoint"),
            exclude=given.pop("exclude"),
            packages=given.pop("packages"),
            install=not given.pop("no_install"),
        )
        stdin = given.pop("stdin")
        if stdin is not None:
            with terminal.Patience("waiting for the end of standard input; Ctrl-C stops"):
                job["stdin"] = stdin.read().decode("utf-8", "surrogateescape")
        return function(
            asked=asked,
            job={key: value for key, value in job.items() if value not in (None, {}, [])},
            **given,
        )

    wrapped.__name__, wrapped.__doc__ = function.__name__, function.__doc__
    wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(
        (
            click.option(
                "-c", "--code", metavar="CODE", help="Code to run; FILE is then the first of its arguments."
            ),
            click.option(
                "-l",
                "--lang",
                metavar="NAME",
                shell_complete=_languages,
                help="Language (python, node, bash, ...) [default: from the file's name].",
            ),
            click.option("-e", "--entrypoint", metavar="FILE", help="The file of a folder to run."),
            click.option(
                "--environment",
                metavar="NAME",
                shell_complete=_environments,
                help="The environment; `sandrun envs` lists them.",
            ),
            click.option(
                "--with",
                "packages",
                multiple=True,
                metavar="PACKAGE",
                help="A package to install first, as pip or npm names it. Repeatable.",
            ),
            click.option(
                "--no-install",
                is_flag=True,
                help="Install nothing that the program, or a file next to it, says that it needs.",
            ),
            click.option(
                "--env",
                multiple=True,
                callback=_variables,
                metavar="NAME=VALUE",
                help="A variable. Repeatable.",
            ),
            click.option(
                "--stdin",
                type=click.File("rb"),
                metavar="FILE",
                help="What the program reads; - for ours, which is the default where something is piped in.",
            ),
            click.option(
                "--pattern",
                multiple=True,
                help="Which files to keep [default: all that it makes or changes]. Repeatable.",
            ),
            click.option(
                "--timeout", type=commandline.Duration(), help="Time limit: seconds, or 90s, 5m, 1h30m."
            ),
            click.option("--memory", type=commandline.Size(), help="Memory limit: MB, or 512m, 1g."),
            click.option("--cpu-seconds", type=commandline.Duration(), help="Limit of CPU time, likewise."),
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
