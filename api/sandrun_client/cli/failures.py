"""What went wrong, in words for people or as JSON: on one line, with the way out where there is one."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import click

from sandrun_client.cli import terminal
from sandrun_client.connecting import DEFAULT_URL, is_local
from sandrun_client.errors import ConnectionFailed, Fault, InvalidRequest, Refused, SandrunError
from sandrun_shared import commandline, languages

FIELDS = (
    "entrypoint interpreter environment args env stdin outputs requirements timeout memory_mb cpu_seconds "
    "gpu warm buffered priority encrypt_to"
).split()
# What people call them elsewhere.
OTHER_NAMES = {
    "language": "interpreter",
    "lang": "interpreter",
    "runtime": "interpreter",
    "main": "entrypoint",
    "script": "entrypoint",
    "file": "entrypoint",
    "arguments": "args",
    "argv": "args",
    "environ": "env",
    "variables": "env",
    "input": "stdin",
    "files": "outputs",
    "packages": "requirements",
    "dependencies": "requirements",
    "memory": "memory_mb",
    "mem": "memory_mb",
    "cpu": "cpu_seconds",
    "template": "environment",
}
UNITS = {"memory_mb": "MB", "timeout": "seconds", "cpu_seconds": "seconds"}
_LEAST = {"memory_mb": 16}


# Faults that the server's answers to other questions make plainer.
EXPLAINED = frozenset({"/interpreter", "/environment", *(f"/{name}" for name in UNITS)})


class Faulty(SandrunError):
    """The refusal of a job, with what the server has and allows instead."""

    def __init__(
        self,
        refused: InvalidRequest,
        *,
        limits: Mapping[str, Any],
        interpreters: Sequence[str],
        environments: Sequence[str],
    ) -> None:
        super().__init__(str(refused))
        self.refused = refused
        self.limits = limits
        self.interpreters = interpreters
        self.environments = environments


class NoSuchFile(click.UsageError):
    """Neither a file nor, in its place, a command."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no file or folder {name!r}, and no such command.")
        self.name = name


def tell(error: Exception, *, as_json: bool, commands: Collection[str] = ()) -> bool:
    """Say it, on standard error, and as JSON if that was asked for; False for what is a mistake of ours."""
    more: dict[str, Any] = {}
    kind = "Sandrun failed"
    refused = error.refused if isinstance(error, Faulty) else error
    match refused:
        case click.UsageError():
            kind, reason = "Wrong command line", commandline.told(refused)
            if isinstance(refused, NoSuchFile):
                reason += _hint(refused.name, commands)
        case click.ClickException():
            reason = refused.format_message()
        case Refused():
            kind, reason = refused.error, reason_of(error)
            more = {"retry_after": refused.retry_after, "status": refused.status}
            if refused.errors:
                more["errors"] = [{"pointer": item.pointer, "detail": item.detail} for item in refused.errors]
        case ConnectionFailed():
            kind, reason = "No connection", str(refused) + way_out(refused)
        case SandrunError():
            reason = str(refused)
        case OSError():
            reason = commandline.os_error_text(refused)
        case _:
            return False
    if as_json:
        # The API's own words, where it is its error, so that a program reads one text everywhere.
        shown = refused.reason if isinstance(refused, Refused) else reason
        document = {"error": kind, "reason": shown, **more}
        terminal.print_json({key: value for key, value in document.items() if value is not None})
    terminal.complain(reason)
    return True


def reason_of(error: Exception) -> str:
    """Why a server refused, in the words of the command line, and when to come back."""
    refused = error.refused if isinstance(error, Faulty) else error
    if isinstance(refused, InvalidRequest) and refused.errors:
        texts = [_fault(item, error) or item.detail for item in refused.errors]
        return "; ".join(dict.fromkeys(texts))
    return str(refused)


def way_out(error: ConnectionFailed) -> str:
    """What to do where no server answers."""
    if error.sent:
        return ""
    start = "start it with: sudo sandrun up; or set" if is_local(error.host) else "the address is that of"
    return f" Is it running? {start[:1].upper() + start[1:]} SANDRUN_URL (default {DEFAULT_URL})."


def _hint(name: str, commands: Collection[str]) -> str:
    if name in commands:
        return f" Options of `{name}` come after it."
    return commandline.nearest(name, commands)


def _fault(fault: Fault, error: Exception) -> str | None:
    """A fault in a manifest as the command line calls it; None for one that has no other words."""
    field = fault.pointer.strip("/").partition("/")[0]
    detail = fault.detail
    if detail.startswith("unknown field"):
        return f"{detail}.{meant_field(field)}"
    if field in UNITS:
        return f"{field.removesuffix('_mb').replace('_', ' ')} must be {_range(field, detail, error)}"
    known: Sequence[str] = ()
    if field == "interpreter":
        known = error.interpreters if isinstance(error, Faulty) else ()
        detail = detail.replace("name it in 'interpreter'", "use --lang")
    elif field == "environment":
        known = error.environments if isinstance(error, Faulty) else ()
    named = re.search(r"'([^']*)'", detail)
    if named is None or not known:
        return detail
    meant = (
        meant_language(named[1], known) if field == "interpreter" else commandline.nearest(named[1], known)
    )
    return detail + meant


def _range(field: str, detail: str, error: Exception) -> str:
    """ "between 16 and 2048 MB", as far as the server and its answer tell."""
    numbers = re.findall(r"\d+(?:\.\d+)?", detail)
    most = error.limits.get(f"max_{field}") if isinstance(error, Faulty) else None
    if most is None and ("at most" in detail or "less than" in detail) and numbers:
        most = numbers[-1]
    least = _LEAST.get(field)
    if most is None and least is None and "greater" not in detail:
        return f"something else: {detail}"
    if most is None:
        return f"at least {least} {UNITS[field]}" if least is not None else "above 0"
    low = f"between {least} and" if least is not None else "above 0 and at most"
    return f"{low} {_plain(most)} {UNITS[field]}"


def _plain(number: object) -> str:
    return f"{float(str(number)):g}"


def meant_field(name: str) -> str:
    """ " Did you mean 'interpreter'?", or nothing."""
    other = OTHER_NAMES.get(name.lower())
    return f" Did you mean {other!r}?" if other else commandline.nearest(name, FIELDS)


def meant_language(name: str, installed: Iterable[str]) -> str:
    """Likewise for languages, by all of their names: python3.12 is python3."""
    bare = re.sub(r"[\d.]+\Z", "", name)
    canonical = languages.canonical(bare)
    known = list(installed)
    if canonical in known and name not in known:
        return f" Did you mean {canonical!r}?"
    return commandline.nearest(
        name, {*known, *(alias for alias, own in languages.NAMES.items() if own in known)}
    )
