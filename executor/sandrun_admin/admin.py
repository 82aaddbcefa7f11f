"""`sandrun admin`: ask the running api which jobs there are, cancel some, pause, resume, deny."""

import json
import re
import socket
from pathlib import Path
from typing import Any

from sandrun_shared.admin import ANSWER_BYTES, REQUEST_BYTES, socket_of
from sandrun_shared.commandline import print_json
from sandrun_shared.settings import load

SECONDS = 10.0
_HUNG_UP = "the api hung up: only root may ask, and four at once"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_COLUMNS = ("job", "state", "verdict", "age_seconds", "cpu_seconds", "memory_bytes", "client", "network")


class AdminError(Exception):
    """The api was not reached, or it refused; the text says why."""


def ask(path: Path, **request: Any) -> dict[str, Any]:
    """The api's answer to one request. Raises AdminError."""
    line = json.dumps(request).encode() + b"\n"
    if len(line) > REQUEST_BYTES:
        raise AdminError("this is too long")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(path))
            connection.sendall(line)
            data = _received(connection)
    except PermissionError:
        raise AdminError("only root may ask: sudo sandrun admin …") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise AdminError(f"the api does not run here: nobody listens on {path}") from None
    except (ConnectionResetError, BrokenPipeError):
        raise AdminError(_HUNG_UP) from None
    except OSError as error:
        raise AdminError(f"the api does not answer: {error}") from None
    try:
        answer = json.loads(data)
    except ValueError:
        raise AdminError(_HUNG_UP) from None
    if not isinstance(answer, dict):
        raise AdminError("the api's answer is not a JSON object")
    if "error" in answer:
        raise AdminError(str(answer["error"]))
    return answer


def _received(connection: socket.socket) -> bytes:
    data = bytearray()
    while len(data) <= ANSWER_BYTES and (piece := connection.recv(65536)):
        data += piece
    return bytes(data)


def run(config: Path | None, path: Path | None, *, as_json: bool, **request: Any) -> int:
    """Ask, and print the answer. Raises AdminError, SettingsError.

    path: the api's socket, if it is not next to the executor's of these settings.
    """
    wanted = {name: value for name, value in request.items() if value is not None}
    answer = ask(path or socket_of(load(config).executor.socket), **wanted)
    if as_json:
        print_json(answer)
    else:
        print(_text(wanted["command"], answer))
    return 0


def _text(command: str, answer: dict[str, Any]) -> str:
    if command == "jobs":
        return _table(answer)
    if command == "cancel":
        return f"cancelled: {answer['cancelled']}"
    if command == "pause":
        return f"No new jobs are taken. Clients are told: {_plain(answer['paused'])}"
    if command == "resume":
        return "Jobs are taken again." if answer["resumed"] else "It was not paused."
    return "denied until the api ends: " + ", ".join(map(_plain, answer["denied"]))


def _table(answer: dict[str, Any]) -> str:
    rows = [_COLUMNS, *(tuple(_plain(job[name]) for name in _COLUMNS) for job in answer["jobs"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = ["  ".join(cells).rstrip() for cells in padded]
    if answer["left_out"]:
        lines.append(f"and {answer['left_out']} more")
    if answer["paused"] is not None:
        lines.append(f"paused: {_plain(answer['paused'])}")
    if answer["denied"]:
        lines.append("denied: " + ", ".join(map(_plain, answer["denied"])))
    return "\n".join(lines)


def _plain(value: object) -> str:
    return "-" if value is None else _CONTROL.sub("?", str(value))
