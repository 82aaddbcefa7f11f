"""Commands about the server; and those of the server itself, which are handed to it if it is installed."""

import contextlib
import importlib.metadata
from typing import Any

import click

from sandrun_client.cli import terminal
from sandrun_client.cli.options import Server, server_options

# The entry point that an installed server has (pyproject.toml).
GROUP, NAME = "sandrun.commands", "server"
DISTRIBUTIONS = ("sandrun-client", "sandrun-server")
COMMANDS = {
    "up": "Start both services in the foreground (root).",
    "doctor": "Say what this machine lacks to run jobs safely.",
    "env": "Build the environments that jobs can name, list and remove them.",
}


@click.command()
@server_options
def envs(server: Server) -> int:
    """List the environments that a job may name."""
    with server.client() as client:
        found = client.list_environments()
    if server.json:
        terminal.print_json(found)
        return 0
    rows = [
        (str(item["name"]), ", ".join(item["interpreters"]), str(item["description"]))
        for item in found.get("details", [])
    ]
    terminal.print_table(("NAME", "INTERPRETERS", "DESCRIPTION"), rows)
    return 0


@click.command()
@server_options
def stats(server: Server) -> int:
    """Say what this address has used and may use, and how busy the server is."""
    with server.client() as client:
        found = client.get_stats()
    if server.json:
        terminal.print_json(found)
        return 0
    quota, system = found["your_quota"], found["system"]
    rows = [
        ("CPU of the last minute", _of(quota.get("used"), quota.get("limit"), " s")),
        ("running jobs", _of(quota.get("active_jobs"), quota.get("max_concurrent_jobs"))),
        ("jobs of the last hour", _of(quota.get("jobs_this_hour"), quota.get("max_jobs_per_hour"))),
        ("server: running jobs", _of(system.get("active_jobs"), system.get("capacity"))),
        ("server: waiting jobs", str(system.get("queue_length"))),
    ]
    if not quota.get("can_submit", True):
        rows.append(("you cannot submit", str(quota.get("reason"))))
    for name, value in rows:
        print(f"{name + ':':26}{terminal.printable(value)}")
    return 0


def server_command(name: str) -> click.Command:
    """The command of that name, which the server's own parser reads."""

    @click.command(
        name,
        help=COMMANDS[name],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> int:
        return hand_over([name, *words])

    return command


def hand_over(words: list[str], called: str = "") -> int:
    """Run one of the server's commands. Raises ClickException when there is no server here.

    called is what errors call the command.
    """
    command = called or f"`sandrun {words[0]}`"
    found = [entry for entry in importlib.metadata.entry_points(group=GROUP) if entry.name == NAME]
    if not found:
        raise click.ClickException(
            f"{command} belongs to the server, which is not installed here: pip install sandrun-server."
        )
    installed = _versions()
    if len(set(installed.values())) > 1:
        both = " and ".join(f"{name} {number}" for name, number in installed.items())
        raise click.ClickException(
            f"{both} are both installed here, and share files: pip uninstall both, "
            "then pip install sandrun-server."
        )
    try:
        main: Any = found[0].load()
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{command} belongs to the server, which is not whole here (it lacks {error.name}): "
            "pip install sandrun-server."
        ) from None
    main(words)  # leaves with its own exit status
    return 0


def version() -> str:
    """The installed version, of the client alone or of the server it came with; both, if they differ."""
    return ", ".join(dict.fromkeys(_versions().values())) or "unknown"


def _versions() -> dict[str, str]:
    """The version of each installed distribution that holds this package."""
    found = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _of(used: Any, limit: Any, unit: str = "") -> str:
    text = "?" if used is None else f"{used:g}"
    return f"{text} of {limit:g}{unit}" if limit else f"{text}{unit}"
