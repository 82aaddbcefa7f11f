"""Commands that ask about the server: its environments, and what this address has used."""

from typing import Any

import click

from sandrun_client.cli import terminal
from sandrun_client.cli.options import Server, server_options
from sandrun_client.errors import when
from sandrun_shared import commandline

BAR = 20  # characters
HEADLINES = 6  # packages that are named


@click.command(cls=commandline.Command)
@server_options
def envs(server: Server) -> int:
    """List the environments that a job may name."""
    with server.client() as client:
        found = client.list_environments()
    if server.json:
        terminal.print_json(dict(found.raw))
        return 0
    rows = [
        (
            item.name,
            ", ".join(item.interpreters)
            if len(item.interpreters) <= 2
            else f"{len(item.interpreters)} languages",
            _headlines(item.packages),
            item.description,
        )
        for item in found
    ]
    terminal.print_table(("NAME", "LANGUAGES", "PACKAGES", "DESCRIPTION"), rows)
    return 0


def _headlines(packages: tuple[str, ...]) -> str:
    names = [name.partition("==")[0] for name in packages]
    more = len(names) - HEADLINES
    return f"{', '.join(names[:HEADLINES])}{f' and {more} more' if more > 0 else ''}" or "-"


@click.command(cls=commandline.Command)
@server_options
def stats(server: Server) -> int:
    """Show your quota and the server's load."""
    with server.client() as client:
        found = client.get_stats()
    if server.json:
        terminal.print_json(dict(found.raw))
        return 0
    quota, system = found.quota, found.system
    rows = [
        ("CPU of the last minute", _of(quota.cpu_seconds, quota.max_cpu_seconds, " s")),
        ("running jobs", _of(quota.active_jobs, quota.max_concurrent_jobs)),
        ("jobs of the last hour", _of(quota.jobs_this_hour, quota.max_jobs_per_hour)),
        ("server: running jobs", _of(system.active_jobs, system.capacity)),
        ("server: waiting jobs", str(system.queue_length)),
    ]
    if not quota.can_submit:
        again = f"; again in {when(quota.retry_after)}" if quota.retry_after else ""
        rows.append(("you cannot submit", f"{quota.reason}{again}"))
    for name, value in rows:
        print(f"{name + ':':26}{terminal.printable(value)}")
    return 0


def _of(used: float, limit: Any, unit: str = "") -> str:
    text = f"{used:.1f}" if unit else f"{used:g}"
    if not limit:
        return f"{text}{unit}, without a limit"
    filled = min(BAR, round(BAR * used / limit))
    bar = f"  [{'#' * filled}{'.' * (BAR - filled)}]" if unit else ""
    return f"{text} of {limit:g}{unit}{bar}"
