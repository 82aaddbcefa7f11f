"""`sandrun run`, also reached as plain `sandrun FILE`, and `--watch`."""

from pathlib import Path
from typing import Any

import click

from sandrun_client.cli.options import Server, job_options, server_options
from sandrun_client.cli.programs import Asked, program_of
from sandrun_client.cli.session import Run
from sandrun_client.cli.signals import Signals, interruptible
from sandrun_shared import commandline


@click.command("run", cls=commandline.Command)
@click.argument("file", required=False, type=click.Path())
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@job_options
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for the files it leaves."
)
@click.option("--keep", is_flag=True, help="Leave the job on the server until it expires.")
@click.option("-w", "--watch", is_flag=True, help="Run again whenever something changes.")
@server_options
def run(
    *, server: Server, asked: Asked, job: dict[str, Any], output: Path | None, keep: bool, watch: bool
) -> int:
    """Run FILE, a folder, CODE, or code from standard input (-), and show what it prints.

    ARGS are the program's; write -- before those that begin with a dash. What is piped in is its standard
    input. Ctrl-C cancels it. The exit status is the program's, 124 when it ran out of time, 125 for Sandrun's
    own errors.
    """
    if output is not None and str(output) == "-":
        raise click.UsageError("-o - is for `sandrun download`: standard output is the program's.")
    program = program_of(asked, job)
    if watch and program.path is None:
        raise click.UsageError("--watch needs a file or a folder.")
    work = Run(program, output, server.json, keep)
    if watch and program.path is not None:
        from sandrun_client.cli.watching import watch as watching  # noqa: PLC0415

        return watching(work, server, program.path)

    def main(signals: Signals) -> int:
        with server.driver() as driver:
            return driver.run(work.once(server.policy(), signals))

    return interruptible(main)
