"""`sandrun mcp`: the server for clients of the Model Context Protocol."""

import logging
import sys

import click

from sandrun_client.cli import servers, terminal
from sandrun_client.cli.options import Server, server_options
from sandrun_client.cli.session import interruptible

DEFAULT_ADDRESS = "127.0.0.1:8444"


@click.command()
@click.option(
    "--http",
    is_flag=False,
    flag_value=DEFAULT_ADDRESS,
    metavar="[HOST:PORT]",
    help=f"Serve streamable HTTP instead of standard input and output [{DEFAULT_ADDRESS}].",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="With --http: a name by which clients call this machine. Repeatable; needed beyond loopback.",
)
@server_options
def mcp(server: Server, http: str | None, allow_host: tuple[str, ...]) -> int:
    """Serve tools that run code to a client of the Model Context Protocol.

    Calls are answered within SANDRUN_TIMEOUT seconds (30); runs that take longer go on as jobs.
    """
    if allow_host and http is None:
        raise click.UsageError("--allow-host belongs to --http.")
    try:
        from sandrun_client.mcp import transports  # noqa: PLC0415 - an extra, which few need
        from sandrun_client.mcp.calls import Calls  # noqa: PLC0415
        from sandrun_client.mcp.server import call_seconds, connected, make_server  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"`sandrun mcp` needs {error.name}: pip install 'sandrun-client[mcp]'."
        ) from None

    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")  # on standard error
    seconds = call_seconds()
    client = connected(server.url, server.verify_with, seconds)
    calls = Calls(client, seconds, server.verify_with)
    made = make_server(calls, servers.version())
    if http is not None:
        address = transports.Address.of(http, allow_host)

        def ready(where: str) -> None:
            terminal.say(f"MCP at {where}; code runs at {client.url}")

        return interruptible(lambda: transports.serve_http(made, address, calls.aclose, ready))
    if sys.stdin.isatty():
        terminal.say("a client of MCP is to start this; `sandrun mcp --http` serves by itself")
    return interruptible(lambda: transports.serve_stdio(made))
