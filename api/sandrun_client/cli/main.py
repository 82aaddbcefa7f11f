"""The command: which subcommand it is, and what it exits with."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from sandrun_client.cli import failures, servers, terminal
from sandrun_shared import commandline

COMPLETE_VARIABLE = "_SANDRUN_COMPLETE"

# Each is loaded when it is called: what others need would make every `sandrun FILE` wait.
OWN = {
    "run": "running:run",
    "submit": "jobs:submit",
    "status": "jobs:status",
    "logs": "jobs:logs",
    "outputs": "jobs:outputs",
    "download": "downloads:download",
    "cancel": "jobs:cancel",
    "envs": "asking:envs",
    "stats": "asking:stats",
    "mcp": "mcp:mcp",
    "verify": "offline:verify",
    "decrypt": "offline:decrypt",
    "keygen": "offline:keygen",
    "completion": "about:completion",
    "help": "about:show_help",
    "version": "about:version",
}
NAMES = (*OWN, *servers.COMMANDS)
_ROOT_OPTIONS = ("-h", "--help", "-V", "--version")


class Commands(commandline.Group):
    """The subcommands, with the server's in a separate section."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names: the client's, then the server's."""
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, loaded."""
        if cmd_name in servers.COMMANDS:
            return servers.command(cmd_name)
        if cmd_name not in OWN:
            return None
        module, _, name = OWN[cmd_name].partition(":")
        found: click.Command = getattr(importlib.import_module(f"sandrun_client.cli.{module}"), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both sections."""
        for title, names in (("Commands", OWN), ("Commands of the server", servers.COMMANDS)):
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, command.get_short_help_str(80)) for name, command in found if command is not None]
            with formatter.section(title):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, and files: `sandrun FILE` runs one."""
        return [*super().shell_complete(ctx, incomplete), CompletionItem(incomplete, type="file")]


@click.group(
    cls=Commands,
    epilog="`sandrun FILE` runs FILE, `sandrun -c CODE` runs code, and code that is piped in runs too: "
    "echo 'print(1)' | sandrun --lang python. SANDRUN_URL names the server.",
)
def sandrun() -> None:
    """Run untrusted code in a sandbox: on a Sandrun server, named by SANDRUN_URL."""


def dispatched(words: Sequence[str]) -> list[str]:
    """The words with `run` in front of those that name no command."""
    if not words:
        return ["--help"] if sys.stdin.isatty() else ["run"]
    if words[0] in NAMES or words[0] in _ROOT_OPTIONS:
        return list(words)
    return ["run", *words]


def main(words: Sequence[str] | None = None) -> None:
    """Run one subcommand and leave with its exit status."""
    given = list(sys.argv[1:] if words is None else words)
    if COMPLETE_VARIABLE in os.environ:
        sandrun.main(given, prog_name="sandrun", complete_var=COMPLETE_VARIABLE)
    sys.exit(_status_of(dispatched(given)))


def _status_of(words: list[str]) -> int:
    """Run it; every way that it can fail has its own exit status and says one line."""
    try:
        status: Any = sandrun.main(words, prog_name="sandrun", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return 130
    except (terminal.ReaderGone, BrokenPipeError):
        # Nobody reads any more; nor shall the interpreter try to write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return terminal.BROKEN_PIPE
    except Exception as error:
        if not failures.tell(error, as_json=commandline.wants_json(words), commands=NAMES):
            raise
        return terminal.OWN_FAILURE
    return status if isinstance(status, int) else 0
