"""The command: which subcommand it is, and what it exits with."""

import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from sandrun_client.cli import jobs, mcp, offline, programs, running, servers, terminal
from sandrun_client.errors import Refused, SandrunError

COMPLETE_VARIABLE = "_SANDRUN_COMPLETE"


class Commands(click.Group):
    """The subcommands, with the server's in a section of their own."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both sections."""
        for title, own in (("Commands", True), ("Commands of the server", False)):
            rows = [
                (name, command.get_short_help_str(80))
                for name, command in self.commands.items()
                if (name not in servers.COMMANDS) is own
            ]
            with formatter.section(title):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, and files: `sandrun FILE` runs one."""
        return [*super().shell_complete(ctx, incomplete), CompletionItem(incomplete, type="file")]


@click.group(
    cls=Commands,
    epilog="`sandrun FILE` runs FILE, and code that is piped in runs too: echo 'print(1)' | sandrun "
    "--lang python. SANDRUN_URL names the server.",
)
@click.version_option(package_name=None, message="%(prog)s %(version)s", version=servers.version())
def sandrun() -> None:
    """Run code that nobody trusts."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print what makes a shell complete this command: eval "$(sandrun completion bash)"."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    print(found(sandrun, {}, "sandrun", COMPLETE_VARIABLE).source())
    return 0


for command in (
    running.run,
    jobs.submit,
    jobs.status,
    jobs.logs,
    jobs.outputs,
    jobs.download,
    jobs.cancel,
    servers.envs,
    servers.stats,
    mcp.mcp,
    offline.verify,
    offline.decrypt,
    offline.keygen,
    completion,
    *(servers.server_command(name) for name in servers.COMMANDS),
):
    sandrun.add_command(command)


def dispatched(words: Sequence[str]) -> list[str]:
    """The words with `run` in front of those that name no command."""
    if not words:
        return ["--help"] if sys.stdin.isatty() else ["run"]
    if words[0] in sandrun.commands or words[0] in ("--help", "--version"):
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
    except programs.NoSuchFile as error:
        _fail(words, error.format_message() + _hint(error.name))
    except click.ClickException as error:
        _fail(words, error.format_message())
    except Refused as error:
        _fail(words, str(error), retry_after=error.retry_after, status=error.status)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except (terminal.ReaderGone, BrokenPipeError):
        # Nobody reads any more; nor shall the interpreter try to write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return terminal.BROKEN_PIPE
    except (SandrunError, OSError) as error:
        _fail(words, str(error))
    else:
        return status if isinstance(status, int) else 0
    return terminal.OWN_FAILURE


def _hint(name: str) -> str:
    if name in sandrun.commands:
        return f" Options of `{name}` come after it."
    similar = difflib.get_close_matches(name, sandrun.commands, 1)
    return f" Did you mean `{similar[0]}`?" if similar else ""


def _fail(words: list[str], reason: str, **more: Any) -> None:
    if "--json" in words:
        document = {"error": "Sandrun failed", "reason": reason, **more}
        terminal.print_json({key: value for key, value in document.items() if value is not None})
    terminal.complain(reason)
