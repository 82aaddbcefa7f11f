"""`sandrun mcp`: the server for clients of the Model Context Protocol."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

import click

from sandrun_client.cli import terminal
from sandrun_client.cli.options import Server, server_options
from sandrun_shared import commandline

DEFAULT_ADDRESS = "127.0.0.1:8444"


@click.command(cls=commandline.Command)
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
            f"`sandrun mcp` needs {error.name}: in a checkout of Sandrun, pip install './client[mcp]'."
        ) from None

    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")  # on standard error
    seconds = call_seconds()
    client = connected(server.url, server.verify_with, seconds)
    calls = Calls(client, seconds, server.verify_with)
    made = make_server(calls, commandline.version())
    if http is not None:
        address = transports.Address.of(http, allow_host)

        def ready(where: str) -> None:
            terminal.say(f"MCP at {where}; code runs at {client.url}")

        return interruptible(lambda: transports.serve_http(made, address, calls.aclose, ready))
    if sys.stdin.isatty():
        terminal.say("a client of MCP is to start this; `sandrun mcp --http` serves by itself")
    return interruptible(lambda: transports.serve_stdio(made))


def interruptible(main: Callable[[], Awaitable[int]]) -> int:
    """Run it in an event loop, where SIGINT, SIGTERM and SIGHUP cancel it; 128+n for the signal."""
    received: list[int] = []

    async def guarded() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int) -> None:
            received.append(number)
            if len(received) == 1 and task is not None:
                task.cancel()
            else:  # asked twice: whatever is still being tidied up is left
                raise KeyboardInterrupt

        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(NotImplementedError):
                    loop.add_signal_handler(number, stop, number)
        return await main()

    try:
        return asyncio.run(guarded())
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 128 + (received[0] if received else signal.SIGINT)
