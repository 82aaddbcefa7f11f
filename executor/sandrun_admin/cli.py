"""The `sandrun` command: one subcommand per thing a person does, each its own parser and handler."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sandrun_admin import doctor, env, gpu_check, keygen, up
from sandrun_shared import keys, settings

FAILED = 125  # exit status of Sandrun's own errors, apart from those of the programs it runs

Handler = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand and leave with its exit status."""
    arguments = _parser().parse_args(argv)
    handler: Handler = arguments.handler
    try:
        status = handler(arguments)
    except (settings.SettingsError, up.StartError, keys.KeyFileError, OSError) as error:
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
    serve.add_argument("--cert", type=Path, metavar="FILE", help="certificate chain (PEM): serve TLS")
    serve.add_argument("--key", type=Path, metavar="FILE", help="private key (PEM) of the certificate")
    serve.add_argument("--behind-proxy", action="store_true", help="a proxy in front speaks TLS")
    serve.add_argument(
        "--quotas", action="store_true", help="keep the quotas for this machine's own requests, too"
    )
    serve.add_argument("--ready-fd", type=int, help="descriptor to write the address to once it serves")
    serve.set_defaults(handler=_up)

    check = commands.add_parser("doctor", help="say what this machine lacks to run jobs safely")
    _add_config(check)
    check.add_argument(
        "--gpu", action="store_true", help="run jobs on every NVIDIA GPU of this machine (root)"
    )
    check.set_defaults(handler=_doctor)

    for name, module, text in (
        ("env", env, "build the environments that jobs can name, list and remove them"),
        ("keygen", keygen, "make a worker's key, which signs receipts"),
    ):
        command = commands.add_parser(name, help=text)
        module.add_arguments(command)
        command.set_defaults(handler=module.run)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help=f"settings file (default: {settings.DEFAULT_PATH})")


def _up(arguments: argparse.Namespace) -> int:
    given = {
        "host": arguments.host,
        "port": arguments.port,
        "cert": arguments.cert and arguments.cert.absolute(),
        "key": arguments.key and arguments.key.absolute(),
        "behind_proxy": arguments.behind_proxy or None,
    }
    overrides = {
        key: str(value).lower() if value is True else str(value)
        for key, value in given.items()
        if value is not None
    }
    return up.run(arguments.config, overrides, arguments.ready_fd, quotas=arguments.quotas)


def _doctor(arguments: argparse.Namespace) -> int:
    return gpu_check.run(arguments.config) if arguments.gpu else doctor.run(arguments.config)


if __name__ == "__main__":
    main()
