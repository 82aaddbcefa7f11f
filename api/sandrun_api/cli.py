"""The `sandrun` command: one subcommand per thing a person does, each its own parser and handler."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sandrun_api import doctor, up
from sandrun_shared import settings

FAILED = 125  # exit status of Sandrun's own errors, apart from those of the programs it runs

Handler = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand and leave with its exit status."""
    arguments = _parser().parse_args(argv)
    handler: Handler = arguments.handler
    try:
        status = handler(arguments)
    except (settings.SettingsError, up.StartError) as error:
        print(f"sandrun: {error}", file=sys.stderr)
        status = FAILED
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandrun", description="Run code that nobody trusts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("up", help="start both services in the foreground (root)")
    _add_config(serve)
    serve.add_argument("--host", help="address to listen on")
    serve.add_argument("--port", type=int, help="port to listen on")
    serve.add_argument("--ready-fd", type=int, help="descriptor to write the address to once it serves")
    serve.set_defaults(handler=_up)

    check = commands.add_parser("doctor", help="say what this machine lacks to run jobs safely")
    _add_config(check)
    check.set_defaults(handler=_doctor)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help=f"settings file (default: {settings.DEFAULT_PATH})")


def _up(arguments: argparse.Namespace) -> int:
    return up.run(arguments.config, arguments.host, arguments.port, arguments.ready_fd)


def _doctor(arguments: argparse.Namespace) -> int:
    return doctor.run(arguments.config)


if __name__ == "__main__":
    main()
