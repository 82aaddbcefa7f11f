"""Commands of the server: shown with the client's, and there where the server is installed."""

from typing import Any

import click

from sandrun_shared import commandline

# The entry point that an installed server has (pyproject.toml).
GROUP, NAME = "sandrun.commands", "server"
COMMANDS = {
    "up": "Start both services in the foreground (root).",
    "admin": "Operate the server that runs here: its jobs, and whom it serves (root).",
    "doctor": "Say what this machine lacks to run jobs safely, and how to mend it.",
    "env": "Build the environments that jobs can name, list and remove them.",
    "config": "Check the settings, or show them and where each comes from.",
}
# No name of an index, because anybody may register it there.
INSTALL = "in a checkout of Sandrun run deploy/quickstart.sh or deploy/install.sh"


def command(name: str) -> click.Command:
    """The server's command of that name; where there is no server, one that says so."""
    try:
        found = group().commands[name]
    except click.ClickException as error:
        reason = error.message

        @click.command(
            name,
            cls=commandline.Command,
            help=COMMANDS[name],
            context_settings={"ignore_unknown_options": True},
        )
        @click.argument("words", nargs=-1, type=click.UNPROCESSED)
        def lacking(words: tuple[str, ...]) -> int:
            raise click.ClickException(f"`sandrun {name}` {reason}")

        return lacking
    return found


def group() -> click.Group:
    """The server's commands. Raises ClickException when there is no server here."""
    import importlib.metadata  # noqa: PLC0415 - slow to load

    found = [entry for entry in importlib.metadata.entry_points(group=GROUP) if entry.name == NAME]
    if not found:
        raise click.ClickException(f"belongs to the server, which is not installed here: {INSTALL}.")
    installed = commandline.versions()
    if len(set(installed.values())) > 1:
        both = " and ".join(f"{name} {number}" for name, number in installed.items())
        raise click.ClickException(
            f"belongs to the server, but {both} are both installed here, and share files: "
            f"pip uninstall both, then {INSTALL}."
        )
    try:
        commands: Any = found[0].load()
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"belongs to the server, which is not whole here (it lacks {error.name}): {INSTALL}."
        ) from None
    if not isinstance(commands, click.Group):
        raise click.ClickException(f"belongs to the server, which here is of another version: {INSTALL}.")
    return commands
