"""`sandrun download`: the files that a job left, in a folder or on standard output."""

import sys
from pathlib import Path

import click

from sandrun_client.cli import terminal
from sandrun_client.cli.options import Server, server_options
from sandrun_client.client import SandrunClient
from sandrun_shared import commandline


@click.command(cls=commandline.Command)
@click.argument("job_id")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, allow_dash=True, path_type=Path),
    default=Path(),
    help="Folder to save in [default: this one]; - writes one file to standard output.",
)
@click.option("--keep", is_flag=True, help="Do not delete the job after all its files were saved.")
@server_options
def download(server: Server, job_id: str, paths: tuple[str, ...], output: Path, keep: bool) -> int:
    """Save the files that a job left, and then delete the job; or only those named, and leave it."""
    if str(output) == "-":
        if server.json:
            raise click.UsageError("-o - writes the file itself, which is no JSON document.")
        with server.client() as client:
            return _print(client, job_id, paths, keep)
    with server.client() as client, terminal.transfer("Downloading", shown=not server.json) as progress:
        if paths:
            output.mkdir(parents=True, exist_ok=True)
            saved = tuple(client.download_file(job_id, path, output, progress=progress) for path in paths)
        else:
            saved = client.download_all(job_id, output, keep=keep, progress=progress)
    if server.json:
        terminal.print_json({"saved": [str(path) for path in saved]})
    else:
        for path in saved:
            print(path)
    return 0


def _print(client: SandrunClient, job_id: str, paths: tuple[str, ...], keep: bool) -> int:
    names = paths or tuple(file.path for file in client.list_outputs(job_id))
    if len(names) != 1:
        found = (
            f"it left {', '.join(names)}"
            if names and not paths
            else "it left none"
            if not names
            else "not more"
        )
        raise click.UsageError(f"Name one file of the job for -o -: {found}.")
    # Whole before any of it is written: it is compared with its SHA-256 first.
    data = client.read_file(job_id, names[0])
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    if not paths and not keep:
        client.cancel(job_id)
    return 0
