"""Commands that ask no server: check a receipt, make a key to encrypt to, open what was sealed to it.

Each loads what it is made of when it runs: cryptography is slow to load, and other commands need none.
"""

from pathlib import Path
from typing import Any

import click

from sandrun_client.cli import servers, terminal
from sandrun_shared import commandline

_PATH = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")


@click.command(cls=commandline.Command)
@click.argument("receipt")
@click.argument("files", nargs=-1, type=_PATH)
@click.option("--worker", metavar="ID", help="Worker id that must have signed.")
@click.option("--manifest", type=_PATH, metavar="FILE", help="The manifest that was sent.")
@click.option(
    "--upload",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="The archive or file sent. Repeatable.",
)
@click.option("--stdout", type=_PATH, metavar="FILE", help="What the job printed, byte for byte.")
@click.option("--stderr", type=_PATH, metavar="FILE", help="What it printed on stderr.")
@_JSON
def verify(as_json: bool, **given: Any) -> int:
    """Check a receipt and what it speaks of, offline.

    RECEIPT is a file with a receipt, a job's status, or a Sandrun-Receipt header; - is standard input.
    FILES are outputs: files, folders, a downloaded archive. Exits with 1 if anything differs.
    """
    from sandrun_client.cli import verify as checks  # noqa: PLC0415

    return checks.run(checks.Checked(**given), as_json=as_json)


@click.command(cls=commandline.Command)
@click.argument("key", type=_PATH)
@click.argument("file")
@click.option(
    "-o",
    "--output",
    type=_PATH,
    default=Path("outputs"),
    metavar="DIR",
    help="Folder for the outputs, which is made [default: outputs].",
)
@_JSON
def decrypt(key: Path, file: str, output: Path, as_json: bool) -> int:
    """Open logs and outputs that were sealed with --encrypt-to.

    KEY is the file that `sandrun keygen --encryption` made. FILE is outputs.sealed, or logs: as text, as
    JSON, or as a live stream gave them; - is standard input.
    """
    from sandrun_client.cli import decrypt as sealed  # noqa: PLC0415
    from sandrun_shared.keys import KeyFileError  # noqa: PLC0415

    try:
        return sealed.run(key, file, output, as_json=as_json)
    except KeyFileError as error:
        raise click.ClickException(str(error)) from None


@click.command(cls=commandline.Command)
@click.argument("file", type=_PATH)
@click.option(
    "--encryption",
    is_flag=True,
    help="A key pair to encrypt to: prints the public key. Without: a worker's key, which the server makes.",
)
@_JSON
@click.pass_context
def keygen(ctx: click.Context, file: Path, encryption: bool, as_json: bool) -> int:
    """Make a key, in a FILE that must not exist yet, and print the public one."""
    if not encryption:
        try:
            command = servers.group().commands["keygen"]
        except click.ClickException as error:
            text = f"`sandrun keygen` without `--encryption` {error.message}"
            raise click.ClickException(text) from None
        made: int = ctx.invoke(command, file=file, as_json=as_json)
        return made
    from nacl.public import PrivateKey  # noqa: PLC0415

    from sandrun_shared import keys  # noqa: PLC0415

    pair = PrivateKey.generate()
    try:
        keys.write_new(file, keys.KeyKind.encryption, bytes(pair))
    except keys.KeyFileError as error:
        raise click.ClickException(str(error)) from None
    public = keys.text_of(bytes(pair.public_key))
    if as_json:
        terminal.print_json({"public_key": public, "file": str(file)})
    else:
        print(public)
    return 0
