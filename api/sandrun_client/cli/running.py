"""`sandrun run`, also reached as plain `sandrun FILE`, and `--watch`."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click

from sandrun_client.cli import terminal
from sandrun_client.cli.options import Server, job_options, server_options
from sandrun_client.cli.programs import program_of
from sandrun_client.cli.session import Run, closable, interruptible
from sandrun_client.errors import SandrunError


@click.command("run")
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
    *,
    server: Server,
    file: str | None,
    args: tuple[str, ...],
    entrypoint: str | None,
    exclude: tuple[str, ...],
    job: dict[str, Any],
    output: Path | None,
    keep: bool,
    watch: bool,
) -> int:
    """Run FILE, a folder, or code from standard input (-), and show what it prints.

    ARGS are the program's; write -- before those that begin with a dash. Ctrl-C cancels it. The exit status
    is the program's, 124 when it ran out of time, 125 when Sandrun itself failed.
    """
    program = program_of(file, entrypoint, args, exclude, job)
    if watch and program.path is None:
        raise click.UsageError("--watch needs a file or a folder.")
    work = Run(program, output, server.json, keep, server.verify_with)

    async def main() -> int:
        async with server.async_client() as client:
            if watch and program.path is not None:
                async with contextlib.aclosing(closable(_changes(program.path, output))) as changes:
                    await _watch(work, client, changes)
            return await work.once(client)

    return interruptible(main)


async def _watch(work: Run, client: Any, changes: AsyncIterator[Any]) -> None:
    """Run, and again after each change, which ends a run that still goes on; until it is cancelled."""
    while True:
        terminal.clear()
        now = datetime.datetime.now().strftime("%H:%M:%S")
        terminal.say(f"{now} running {work.program.title}")
        running = asyncio.ensure_future(_one(work, client))
        changed = asyncio.ensure_future(anext(changes))
        try:
            await asyncio.wait({running, changed}, return_when=asyncio.FIRST_COMPLETED)
            if not changed.done():
                terminal.say("waiting for a change")
            await changed
        finally:
            for task in (running, changed):
                task.cancel()
            await asyncio.gather(running, changed, return_exceptions=True)


async def _one(work: Run, client: Any) -> None:
    try:
        status = await work.once(client)
    except (SandrunError, click.UsageError, OSError) as error:
        # A file that is just being written again, a server that restarts: the next change may mend it.
        if isinstance(error, BrokenPipeError):
            raise
        terminal.complain(error.format_message() if isinstance(error, click.UsageError) else str(error))
    else:
        terminal.say(f"exit status {status}")


def _changes(path: Path, output: Path | None) -> AsyncIterator[Any]:
    """Changes of a file, or of anything in a folder but what is saved there and what editors leave."""
    import watchfiles  # noqa: PLC0415 - 60 ms that no other command needs

    wanted = path.resolve()
    saved = output.resolve() if output is not None else None
    usual = watchfiles.DefaultFilter()

    def counts(change: watchfiles.Change, name: str) -> bool:
        changed = Path(name)
        if not path.is_dir():
            return changed == wanted
        if saved is not None and saved != wanted and changed.is_relative_to(saved):
            return False
        return usual(change, name)

    # A file is watched by its folder: editors put a new one in its place.
    top = wanted if path.is_dir() else wanted.parent
    return watchfiles.awatch(top, watch_filter=counts, recursive=path.is_dir(), raise_interrupt=False)
