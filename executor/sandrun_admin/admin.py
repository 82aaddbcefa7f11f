"""`sandrun admin`: ask the running api which jobs there are, cancel some, pause, resume, deny."""

import argparse
import json
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandrun_shared.admin import ANSWER_BYTES, REQUEST_BYTES, socket_of
from sandrun_shared.settings import SettingsError, load

SECONDS = 10.0
FAILED = 125
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
        raise AdminError("the api gave an answer that is none")
    if "error" in answer:
        raise AdminError(str(answer["error"]))
    return answer


def _received(connection: socket.socket) -> bytes:
    data = bytearray()
    while len(data) <= ANSWER_BYTES and (piece := connection.recv(65536)):
        data += piece
    return bytes(data)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status, 125 when it failed."""
    arguments = _parser().parse_args(argv)
    request = {
        name: value
        for name in ("command", "target", "reason", "retry_after")
        if (value := getattr(arguments, name, None)) is not None
    }
    try:
        path = arguments.socket or socket_of(load(arguments.config).executor.socket)
        answer = ask(path, **request)
    except (AdminError, SettingsError) as error:
        print(f"sandrun: {error}", file=sys.stderr)
        return FAILED
    print(json.dumps(answer) if arguments.json else _text(arguments.command, answer))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandrun admin", description="Operate the server that runs here.")
    parser.add_argument("--config", type=Path, help="settings file")
    parser.add_argument("--socket", type=Path, help="the api's socket, if it is not beside the executor's")
    parser.add_argument("--json", action="store_true", help="answer with one JSON document")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("jobs", help="list the jobs there are, and what is denied")
    cancel = commands.add_parser("cancel", help="end jobs that wait or run")
    cancel.add_argument("target", help="hash of a job, a client or a network, or: all")
    pause = commands.add_parser("pause", help="take no new jobs; those there are go on")
    pause.add_argument("reason", nargs="?", help="what clients are told")
    pause.add_argument("--retry-after", type=int, metavar="SECONDS", help="when they are to try again")
    commands.add_parser("resume", help="take jobs again")
    deny = commands.add_parser("deny", help="serve a network or client no more, until the api ends")
    deny.add_argument("target", help="network (192.0.2.0/24), or hash of a client or a network")
    return parser


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


if __name__ == "__main__":
    sys.exit(main())
