"""Commands about the command itself: completion, help, version."""

import click
from click.shell_completion import get_completion_class

from sandrun_shared import commandline

_JSON = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")


@click.command(cls=commandline.Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@_JSON
def completion(shell: str, as_json: bool) -> int:
    """Print what makes a shell complete this command: eval "$(sandrun completion bash)"."""
    from sandrun_client.cli.main import COMPLETE_VARIABLE, sandrun  # noqa: PLC0415 - which loads this module

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    source = found(sandrun, {}, "sandrun", COMPLETE_VARIABLE).source()
    if as_json:
        commandline.print_json({"shell": shell, "source": source})
    else:
        print(source)
    return 0


@click.command("help", cls=commandline.Command)
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@_JSON
@click.pass_context
def show_help(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> int:
    """Show the help of a command, as -h after it does."""
    if ctx.parent is None:
        raise click.UsageError("There is nothing to help with.", ctx)
    found = ctx.parent
    for name in names:
        command = found.command.get_command(found, name) if isinstance(found.command, click.Group) else None
        if command is None:
            known = found.command.list_commands(found) if isinstance(found.command, click.Group) else []
            raise click.UsageError(f"There is no command {name!r}.{commandline.nearest(name, known)}", found)
        found = click.Context(command, parent=found, info_name=name)
    text = found.command.get_help(found)
    if as_json:
        commandline.print_json({"help": text})
    else:
        print(text)
    return 0


@click.command(cls=commandline.Command)
@_JSON
def version(as_json: bool) -> int:
    """Show the version."""
    number = commandline.version()
    if as_json:
        commandline.print_json({"version": number})
    else:
        print(f"sandrun {number}")
    return 0
