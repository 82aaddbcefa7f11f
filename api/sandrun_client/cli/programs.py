"""What to run: a file, a folder, or code from standard input."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from sandrun_client.aio import AsyncSandrunClient
from sandrun_client.exchange import Progress
from sandrun_client.models import JobOptions, Submitted
from sandrun_shared import languages

MANIFEST = "job.json"
MAINS = tuple(dict.fromkeys(language.main for language in languages.LANGUAGES if language.extensions))


class NoSuchFile(click.UsageError):
    """Neither a file nor, in its place, a command."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no file or folder {name!r}, and no such command.")
        self.name = name


@dataclass(frozen=True)
class Program:
    """Something to submit: read again each time, so that a changed file counts."""

    path: Path | None  # None: code
    options: Mapping[str, Any]
    entrypoint: str | None = None
    exclude: tuple[str, ...] = ()
    code: bytes = field(default=b"", repr=False)

    @property
    def title(self) -> str:
        """Its name for people."""
        return "the program" if self.path is None else str(self.path)

    async def submit(self, client: AsyncSandrunClient, progress: Progress | None) -> Submitted:
        """Send it. Raises SandrunError, UsageError."""
        if self.path is not None and self.path.is_dir():
            entrypoint, options = _directory_options(self.path, self.entrypoint, self.options)
            return await client.submit_directory(
                self.path, entrypoint=entrypoint, exclude=self.exclude, progress=progress, **options
            )
        options = JobOptions(**self.options)  # type: ignore[typeddict-item]
        if self.path is None:
            name = None
            if "interpreter" not in options and self.code.startswith(b"#!"):
                name = "main"  # its first line tells
            return await client.submit_code(self.code, name=name, progress=progress, **options)
        return await client.submit_code(
            self.path.read_bytes(), name=self.path.name, progress=progress, **options
        )


def program_of(
    file: str | None,
    entrypoint: str | None,
    args: tuple[str, ...],
    exclude: tuple[str, ...],
    job: dict[str, Any],
) -> Program:
    """The program that a command line names. Raises UsageError."""
    options = {**job, **({"args": list(args)} if args else {})}
    if file is None and sys.stdin.isatty():
        raise click.UsageError("Nothing to run: name a file or a folder, or pipe code in.")
    if file is None or file == "-":
        if entrypoint is not None:
            raise click.UsageError("--entrypoint is for folders.")
        return Program(None, options, code=sys.stdin.buffer.read())
    path = Path(file)
    if not path.exists():
        raise NoSuchFile(file)
    if entrypoint is not None and not path.is_dir():
        raise click.UsageError("--entrypoint is for folders.")
    return Program(path, options, entrypoint, exclude)


def _directory_options(
    folder: Path, entrypoint: str | None, given: Mapping[str, Any]
) -> tuple[str, JobOptions]:
    """The entrypoint, and job.json's words with those of the command line over them. Raises UsageError."""
    options: dict[str, Any] = {}
    try:
        options = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        pass
    except ValueError:
        raise click.UsageError(f"{folder / MANIFEST} is not JSON.") from None
    if not isinstance(options, dict):
        raise click.UsageError(f"{folder / MANIFEST} is not a JSON object.")
    named = options.pop("entrypoint", None)
    entrypoint = entrypoint or named or _main_of(folder)
    return entrypoint, JobOptions(**{**options, **given})  # type: ignore[typeddict-item]


def _main_of(folder: Path) -> str:
    found = [name for name in MAINS if (folder / name).is_file()]
    if len(found) != 1:
        which = f"it has {' and '.join(found)}" if found else f"it has no {MANIFEST} and no main file"
        raise click.UsageError(f"Say what to run in {folder} with --entrypoint: {which}.")
    return found[0]
