"""`sandrun config`: reads the settings as the services do; says what is wrong, or where each comes from."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from sandrun_shared import commandline, settings
from sandrun_shared.tls import check as check_tls


@dataclass(frozen=True)
class Setting:
    """One setting, and the variable, or file and line, that it comes from ("default": neither)."""

    name: str
    value: Any
    origin: str


def check(path: Path | None, *, as_json: bool) -> int:
    """Say that the settings can be used. Raises SettingsError if they cannot."""
    chosen = settings.load(path)
    check_tls(chosen.api)
    changed = [item for item in listed(path, os.environ) if item.origin != "default"]
    source = path or settings.DEFAULT_PATH
    if as_json:
        document = {"valid": True, "file": str(source) if source.exists() else None, "changed": len(changed)}
        commandline.print_json(document)
    else:
        where = str(source) if source.exists() else f"no {source}"
        print(f"The settings are valid: {where}, {len(changed)} of them not the default.")
    return 0


def show(path: Path | None, names: tuple[str, ...], *, changed: bool, as_json: bool) -> int:
    """Print the settings: all, or those that names (of tables, or TABLE.KEY) choose. Raises SettingsError."""
    found = list(listed(path, os.environ))
    known = {name for item in found for name in (item.name, item.name.partition(".")[0])}
    for name in names:
        if name not in known:
            raise click.UsageError(f"There is no setting {name!r}.{commandline.nearest(name, known)}")
    shown = [
        item
        for item in found
        if (not names or item.name in names or item.name.partition(".")[0] in names)
        and not (changed and item.origin == "default")
    ]
    if as_json:
        commandline.print_json([asdict(item) for item in shown])
        return 0
    width = max((len(item.name) for item in shown), default=0)
    for item in shown:
        value = msgspec.json.encode(item.value).decode()
        print(f"{item.name:<{width}}  {value:<24}  {item.origin}".rstrip())
    return 0


def listed(path: Path | None, environ: Mapping[str, str]) -> Iterator[Setting]:
    """Every setting in the order of its table. Raises SettingsError."""
    chosen, origins = settings.load_with_origins(path, environ)
    for table, values in msgspec.to_builtins(chosen).items():
        for key, value in values.items():
            yield Setting(f"{table}.{key}", value, origins.set_by(table, key) or "default")
