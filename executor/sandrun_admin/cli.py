"""The server's commands, which `sandrun` finds by their entry point and shows with the client's."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sandrun_admin import admin as operations
from sandrun_admin import config as configuration
from sandrun_admin import doctor as checks
from sandrun_admin import env as environments
from sandrun_admin import gpu_check
from sandrun_admin import keygen as worker_keys
from sandrun_admin import up as services
from sandrun_admin.builds import BuildError
from sandrun_shared import commandline, keys, settings
from sandrun_shared.environments import DefinitionError

FAILED = commandline.OWN_FAILURE
_WORDS = "sandrun.words"  # where a context keeps the words that the command was given


class Command(commandline.Command):
    """A command whose failures are told in words, with `sudo` in front where root is needed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but the words are kept."""
        ctx.meta[_WORDS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. Raises ClickException for what an operator can mend."""
        try:
            return super().invoke(ctx)
        except services.NeedsRoot as error:
            raise click.ClickException(f"{_needs_root(ctx)} ({error})") from None
        except PermissionError as error:
            if os.geteuid() == 0:
                raise click.ClickException(commandline.os_error_text(error)) from None
            raise click.ClickException(_needs_root(ctx)) from None
        except OSError as error:
            raise click.ClickException(commandline.os_error_text(error)) from None
        except (
            settings.SettingsError,
            services.StartError,
            operations.AdminError,
            keys.KeyFileError,
            BuildError,
            DefinitionError,
        ) as error:
            raise click.ClickException(str(error)) from None


class Group(commandline.Group):
    """Commands of the server."""

    command_class = Command


Group.group_class = Group


def _needs_root(ctx: click.Context) -> str:
    return f"needs root: sudo {ctx.command_path} {shlex.join(ctx.meta.get(_WORDS, []))}".rstrip()


def _environment_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    try:
        names = environments.names()
    except (settings.SettingsError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


_PATH = click.Path(path_type=Path)
_PORT = click.IntRange(1, 65535)
_PORT.name = "integer"  # as errors call it
_CONFIG = click.option(
    "--config", type=_PATH, metavar="FILE", help=f"Settings file [default: {settings.DEFAULT_PATH}]."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")
_SOCKET = click.option(
    "--socket",
    "path",
    type=_PATH,
    metavar="FILE",
    help="The api's socket, if not next to the executor's.",
)
_NAMES = click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_environment_names)
_ALL = click.option("--all", "every", is_flag=True, help="Every environment.")


@click.group(cls=Group, name="sandrun")
def commands() -> None:
    """Run untrusted code: the server's commands."""


@commands.command()
@_CONFIG
@click.option("--host", metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", type=_PORT, metavar="PORT", help="Port to listen on.")
@click.option("--cert", type=_PATH, metavar="FILE", help="Certificate chain (PEM): serve TLS.")
@click.option("--key", type=_PATH, metavar="FILE", help="Private key (PEM) of the certificate.")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front speaks TLS.")
@click.option("--quotas", is_flag=True, help="Keep the quotas for this machine's own requests, too.")
@click.option("--ready-fd", type=int, metavar="FD", help="Descriptor to write the address to once it serves.")
@_JSON
def up(config: Path | None, ready_fd: int | None, quotas: bool, as_json: bool, **given: Any) -> int:
    """Start both services in the foreground (root)."""
    chosen = {
        "host": given["host"],
        "port": given["port"],
        "cert": given["cert"] and given["cert"].absolute(),
        "key": given["key"] and given["key"].absolute(),
        "behind_proxy": given["behind_proxy"] or None,
    }
    overrides = {
        key: str(value).lower() if value is True else str(value)
        for key, value in chosen.items()
        if value is not None
    }
    return services.run(config, overrides, ready_fd, quotas=quotas, as_json=as_json)


@commands.command()
@_CONFIG
@click.option("--gpu", is_flag=True, help="Run jobs on every NVIDIA GPU of this machine (root).")
@_JSON
def doctor(config: Path | None, gpu: bool, as_json: bool) -> int:
    """Say what this machine lacks to run jobs safely, and how to mend it; exits with 1 if it does."""
    if not gpu:
        return checks.run(config, as_json=as_json)
    if not as_json:
        return gpu_check.run(config)
    lines: list[str] = []
    status = gpu_check.run(config, say=lines.append)
    commandline.print_json({"safe": status == 0, "lines": lines})
    return status


@commands.command()
@click.argument("file", type=_PATH)
@_JSON
def keygen(file: Path, as_json: bool) -> int:
    """Make a worker's key, which signs receipts, in a FILE that must not exist yet; print the worker id."""
    worker_id = worker_keys.make(file)
    if as_json:
        commandline.print_json({"worker_id": worker_id, "file": str(file)})
    else:
        print(worker_id)
    return 0


@commands.group()
def env() -> None:
    """Build the environments that jobs can name, list and remove them."""


@env.command("build")
@_NAMES
@_ALL
@_CONFIG
@_JSON
def env_build(names: tuple[str, ...], every: bool, config: Path | None, as_json: bool) -> int:
    """Build environments from their locks (root)."""
    return environments.each("build", environments.Chosen(names, every), config, as_json=as_json)


@env.command("list")
@_CONFIG
@_JSON
def env_list(config: Path | None, as_json: bool) -> int:
    """List environments and whether they are built."""
    return environments.listing(config, as_json=as_json)


@env.command("remove")
@_NAMES
@_ALL
@_CONFIG
@_JSON
def env_remove(names: tuple[str, ...], every: bool, config: Path | None, as_json: bool) -> int:
    """Delete what was built (root)."""
    return environments.each("remove", environments.Chosen(names, every), config, as_json=as_json)


@env.command("lock")
@_NAMES
@_ALL
@click.option("--upgrade", is_flag=True, help="Take the newest versions.")
@_CONFIG
@_JSON
def env_lock(names: tuple[str, ...], every: bool, upgrade: bool, config: Path | None, as_json: bool) -> int:
    """Write the locks again: versions and hashes of all packages."""
    chosen = environments.Chosen(names, every)
    return environments.each("lock", chosen, config, as_json=as_json, upgrade=upgrade)


@commands.group()
def admin() -> None:
    """Operate the server that runs here: its jobs, and whom it serves (root)."""


@admin.command("jobs")
@_CONFIG
@_SOCKET
@_JSON
def admin_jobs(config: Path | None, path: Path | None, as_json: bool) -> int:
    """List the jobs that the server has, and what is denied."""
    return operations.run(config, path, as_json=as_json, command="jobs")


@admin.command("cancel")
@click.argument("target")
@_CONFIG
@_SOCKET
@_JSON
def admin_cancel(target: str, config: Path | None, path: Path | None, as_json: bool) -> int:
    """End jobs that wait or run: TARGET is the hash of a job, a client or a network, or `all`."""
    return operations.run(config, path, as_json=as_json, command="cancel", target=target)


@admin.command("pause")
@click.argument("reason", required=False)
@click.option("--retry-after", type=int, metavar="SECONDS", help="When clients are to try again.")
@_CONFIG
@_SOCKET
@_JSON
def admin_pause(config: Path | None, path: Path | None, as_json: bool, **told: Any) -> int:
    """Take no new jobs; those that the server has go on. REASON is what clients are told."""
    return operations.run(config, path, as_json=as_json, command="pause", **told)


@admin.command("resume")
@_CONFIG
@_SOCKET
@_JSON
def admin_resume(config: Path | None, path: Path | None, as_json: bool) -> int:
    """Take jobs again."""
    return operations.run(config, path, as_json=as_json, command="resume")


@admin.command("deny")
@click.argument("target")
@_CONFIG
@_SOCKET
@_JSON
def admin_deny(target: str, config: Path | None, path: Path | None, as_json: bool) -> int:
    """Refuse TARGET until the api ends: a network (192.0.2.0/24), or the hash of a client or a network."""
    return operations.run(config, path, as_json=as_json, command="deny", target=target)


@commands.group()
def config() -> None:
    """Check the settings, or show them and where each comes from."""


@config.command("check")
@_CONFIG
@_JSON
def config_check(config: Path | None, as_json: bool) -> int:
    """Read the settings as the services would, and say what is wrong with them."""
    return configuration.check(config, as_json=as_json)


@config.command("show")
@click.argument("names", nargs=-1, metavar="[TABLE|TABLE.KEY]...")
@click.option("--changed", is_flag=True, help="Only what is not the default.")
@_CONFIG
@_JSON
def config_show(names: tuple[str, ...], changed: bool, config: Path | None, as_json: bool) -> int:
    """Show every setting, its value, and the file or variable that it comes from."""
    return configuration.show(config, names, changed=changed, as_json=as_json)


def main(words: Sequence[str] | None = None) -> None:
    """Run one command without the client's, as this repository's scripts do; leave with its exit status."""
    given = list(sys.argv[1:] if words is None else words)
    try:
        status: Any = commands.main(given, prog_name="sandrun", standalone_mode=False)
    except click.ClickException as error:
        text = commandline.told(error)
        if commandline.wants_json(given):
            commandline.print_json({"error": "Sandrun failed", "reason": text})
        print(f"sandrun: {text}", file=sys.stderr)
        status = FAILED
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
