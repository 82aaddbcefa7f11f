"""`sandrun decrypt`: opens logs and outputs that were sealed to one's own key."""

import json
import os
import sys
from pathlib import Path
from typing import BinaryIO

from nacl.public import PrivateKey

from sandrun_client.cli import terminal
from sandrun_client.errors import InvalidTarget
from sandrun_client.outputs import place_of
from sandrun_shared import keys
from sandrun_shared.outputs import OutputEntry
from sandrun_shared.paths import shown
from sandrun_shared.sealing import FIRST_MAGIC, MAGIC, SealedOutputs, SealError, open_logs

_STREAMS = ((1, "stdout"), (2, "stderr"))
MAX_LOGS = 256 << 20  # bytes


def run(key_file: Path, name: str, folder: Path, *, as_json: bool = False) -> int:
    """Print the logs, or write the outputs to a new folder; 1 if they cannot be opened.

    as_json: the logs as text, or the names of the files, in one document.

    name is that of the sealed file, "-" for standard input. Raises KeyFileError, OSError.
    """
    key = PrivateKey(keys.read(key_file, keys.KeyKind.encryption))
    try:
        if name == "-":
            return _open(key, sys.stdin.buffer, folder, as_json)
        with open(name, "rb") as file:
            return _open(key, file, folder, as_json)
    except (SealError, InvalidTarget) as error:
        if as_json:
            terminal.print_json({"error": "It cannot be opened", "reason": str(error)})
        terminal.complain(str(error))
        return 1


def _open(key: PrivateKey, file: BinaryIO, folder: Path, as_json: bool) -> int:
    head = file.read(len(MAGIC))
    if head in (MAGIC, FIRST_MAGIC):
        return _write_outputs(SealedOutputs(key, file, head), folder, as_json)
    data = head + file.read(MAX_LOGS)
    if file.read(1):
        raise SealError(f"the logs have more than {MAX_LOGS} bytes")
    return _print_logs(key, _sealed_text(data), as_json)


def _sealed_text(data: bytes) -> bytes:
    if not data.lstrip().startswith(b"{"):
        return data
    try:
        text = json.loads(data)["stdout"]
    except (ValueError, KeyError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise SealError("this is neither sealed text nor the JSON of logs")
    return text.encode()


def _print_logs(key: PrivateKey, text: bytes, as_json: bool) -> int:
    records, complete = open_logs(key, text)
    if as_json:
        whole = {
            name: b"".join(data for stream, data in records if stream == number) for number, name in _STREAMS
        }
        shown = {name: data.decode("utf-8", "replace") for name, data in whole.items()}
        terminal.print_json({**shown, "complete": complete})
        return int(not complete)
    streams = {1: sys.stdout.buffer, 2: sys.stderr.buffer}
    for stream, data in records:
        streams[stream].write(data)
        streams[stream].flush()
    if not complete:
        terminal.complain("the logs end before the job did")
    return int(not complete)


def _write_outputs(outputs: SealedOutputs, folder: Path, as_json: bool) -> int:
    # All names are looked at before anything is written.
    places = [place_of(folder, entry.path) for entry in outputs.entries]
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        # Into a new folder: nothing in it can lead a path elsewhere or be overwritten.
        raise SealError(f"{folder} exists: name a new folder with --output") from None
    for target, (entry, pieces) in zip(places, outputs.files(), strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.writelines(pieces)
            file.flush()
            _restore(file.fileno(), entry)
        if not as_json:
            print(shown(entry.path))
    if as_json:
        terminal.print_json({"saved": [str(target) for target in places]})
    return 0


def _restore(fd: int, entry: OutputEntry) -> None:
    """Give a file the permissions, less what the umask takes, and the time that the job left it with."""
    if entry.mode is not None:
        mask = os.umask(0o077)
        os.umask(mask)
        os.fchmod(fd, entry.mode & ~mask | 0o600)
    if entry.modified_unix_seconds is not None:
        os.utime(fd, (entry.modified_unix_seconds,) * 2)
