"""What all commands of `sandrun` share, the client's and the server's: types, help, errors in words."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

OWN_FAILURE = 125  # exit status of Sandrun's own errors, apart from those of the programs it runs
CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
DISTRIBUTIONS = ("sandrun-client", "sandrun-server")

_DURATION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(i?b)?", re.IGNORECASE)
_MEBIBYTES = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}


# Newer versions of click have a parameter of the type, older ones do not.
class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds: a plain number, or with units, like 500ms, 90s, 5m, 1h30m."""

    name = "duration"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As help shows it."""
        return "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds, which are more than none."""
        if isinstance(value, (int, float)):
            return float(value)
        text = value.strip().lower()
        try:
            seconds = float(text)
        except ValueError:
            if not text or _DURATION.sub("", text):
                self.fail(f"{value!r} is not a time: write 30, 90s, 5m or 1h30m.", param, ctx)
            parts = _DURATION.finditer(text)
            seconds = sum(float(part[0].removesuffix(part[1])) * _SECONDS[part[1]] for part in parts)
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is not a time above 0.", param, ctx)
        return seconds


class Size(click.ParamType):  # type: ignore[type-arg]
    """MiB: a plain number, or with a unit, like 512m, 1g, 1.5GiB."""

    name = "size"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As help shows it."""
        return "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The MiB, rounded up."""
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value.strip())
        if found is None or (found[3] and not found[2]):
            self.fail(f"{value!r} is not a size: write 512 (MB), 512m or 1g.", param, ctx)
        exact = float(found[1]) * _MEBIBYTES[found[2].lower() or "m"]
        if exact <= 0:
            self.fail(f"{value!r} is not a size above 0.", param, ctx)
        return -int(-exact // 1)


def nearest(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'x'?", or nothing where no known word is near."""
    import difflib  # noqa: PLC0415 - slow to load, and only mistakes need it

    by_folded = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_folded, 1)
    return f" Did you mean {by_folded[found[0]]!r}?" if found else ""


def versions() -> dict[str, str]:
    """The version of each installed distribution that holds the command."""
    import importlib.metadata  # noqa: PLC0415 - slow to load, and few commands ask

    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def version() -> str:
    """The installed version, of the client alone or of the server it came with; both, if they differ."""
    return ", ".join(dict.fromkeys(versions().values())) or "unknown"


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"sandrun {version()}")
        ctx.exit()


def version_option(*, hidden: bool = False) -> click.Option:
    """-V and --version."""
    return click.Option(
        ["-V", "--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        hidden=hidden,
        help="Show the version and exit.",
        callback=_print_version,
    )


def _with_help(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "context_settings": {**CONTEXT, **(options.get("context_settings") or {})}}


class Command(click.Command):
    """A command that takes -h and -V."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **_with_help(options))
        self.params.append(version_option(hidden=True))


class Group(click.Group):
    """A group that takes -h and -V, as its commands do, and says which command was meant."""

    command_class = Command

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **_with_help(options))
        self.params.append(version_option())

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(f"There is no command {args[0]!r}.{nearest(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)


Group.group_class = Group  # of its subgroups


def told(error: click.ClickException) -> str:
    """What to tell of an error, on one line; of a wrong command line also where its help is."""
    text = error.format_message()
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "sandrun"
        return f"{text} `{path} --help` tells more."
    return text


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line, up to what is the program's, asks for JSON."""
    ours = words[: words.index("--")] if "--" in words else words
    return "--json" in ours


def print_json(document: Any) -> None:
    """One JSON document on standard output: indented on a terminal, else on one line."""
    print(json.dumps(document, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False), flush=True)


def os_error_text(error: OSError) -> str:
    """An error of the system in words, without its number."""
    reason = error.strerror or str(error) or type(error).__name__
    reason = reason[:1].lower() + reason[1:]
    return f"{error.filename}: {reason}" if error.filename is not None else reason
