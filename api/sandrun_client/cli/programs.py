"""What to run: a file, a folder, or code from the command line or standard input."""

import json
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from sandrun_client import jobs
from sandrun_client.cli import failures, terminal
from sandrun_client.cli.failures import NoSuchFile
from sandrun_client.errors import InvalidRequest
from sandrun_client.exchange import Flow, Policy, Progress
from sandrun_client.models import JobOptions, Submitted
from sandrun_shared import languages

MANIFEST = "job.json"
MAINS = tuple(dict.fromkeys(language.main for language in languages.LANGUAGES if language.extensions))
MOST_INPUT = 64 << 20  # bytes of standard input; servers take less


@dataclass(frozen=True)
class Asked:
    """What a command line says about a program."""

    file: str | None
    args: tuple[str, ...] = ()
    code: str | None = None
    entrypoint: str | None = None
    exclude: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    install: bool = True


@dataclass(frozen=True)
class Program:
    """Something to submit: read again each time, so that a changed file counts."""

    path: Path | None  # None: code
    options: Mapping[str, Any]
    entrypoint: str | None = None
    exclude: tuple[str, ...] = ()
    code: bytes = field(default=b"", repr=False)
    packages: tuple[str, ...] = ()
    install: bool = True  # also what the program itself, or a file next to it, says that it needs

    @property
    def title(self) -> str:
        """Its name for people."""
        return "the program" if self.path is None else str(self.path)

    @property
    def installing(self) -> str:
        """What is said when its output is long in coming; "" for nothing."""
        if not self.packages:
            return ""
        return f"waiting for {', '.join(self.packages)} to be installed; Ctrl-C stops"

    def submit(self, policy: Policy, progress: Progress | None) -> Flow[Submitted]:
        """Send it. Raises SandrunError, UsageError."""
        if self.path is not None and self.path.is_dir():
            return (yield from self._submit_directory(self.path, policy, progress))
        code, name = (self.code, None) if self.path is None else (self.path.read_bytes(), self.path.name)
        if name is None and "interpreter" not in self.options and code.startswith(b"#!"):
            name = "main"  # its first line tells
        options = dict(self.options)
        if packages := [*self.packages, *self._named_in(code, name)]:
            options["packages"] = packages
        return (
            yield from jobs.submit_code(
                policy,
                code=code,
                files={},
                name=name,
                options=JobOptions(**options),  # type: ignore[typeddict-item]
                progress=progress,
                idempotency_key=None,
            )
        )

    def _named_in(self, code: bytes, name: str | None) -> list[str]:
        """The packages of a `# /// script` block."""
        language = self.options.get("interpreter") or (
            languages.of_file(name, code) if name else languages.DEFAULT
        )
        if not self.install or languages.canonical(language) != languages.DEFAULT or b"# ///" not in code:
            return []
        from sandrun_client import dependencies  # noqa: PLC0415

        found = dependencies.of_script(code)
        if found:
            terminal.say(f"installing what the program names: {', '.join(found)} (--no-install: nothing)")
        return found

    def _submit_directory(self, folder: Path, policy: Policy, progress: Progress | None) -> Flow[Submitted]:
        entrypoint, given = _directory_options(folder, self.entrypoint, self.options)
        options: dict[str, Any] = dict(given)
        noticed = None
        if self.packages:
            options.pop("requirements", None)
            options["packages"] = list(self.packages)
        elif self.install and not options.get("requirements"):
            noticed = _noticed(folder, entrypoint)
            if noticed is not None:
                options["requirements"] = noticed
                terminal.say(f"installing what {noticed} names (--no-install: nothing)")
        while True:
            try:
                return (
                    yield from jobs.submit_directory(
                        policy,
                        folder=folder,
                        entrypoint=entrypoint,
                        exclude=self.exclude,
                        options=JobOptions(**options),  # type: ignore[typeddict-item]
                        progress=progress,
                        idempotency_key=None,
                    )
                )
            except InvalidRequest as error:
                # Nobody asked for it: where a server installs nothing, its environment may have the packages.
                if noticed is None or all(item.pointer != "/requirements" for item in error.errors):
                    raise
                terminal.complain(f"{error.reason} Running without what {noticed} names.")
                noticed = options.pop("requirements", None) and None


def program_of(asked: Asked, job: dict[str, Any]) -> Program:
    """The program that a command line names. Raises UsageError."""
    if asked.code is not None:
        # FILE is then the first of the program's arguments.
        args = (*((asked.file,) if asked.file is not None else ()), *asked.args)
        options = {**_with_input(job), **({"args": list(args)} if args else {})}
        _refuse_entrypoint(asked)
        code = asked.code.encode("utf-8", "surrogateescape")
        return Program(None, options, code=code, packages=asked.packages, install=asked.install)
    options = {**job, **({"args": list(asked.args)} if asked.args else {})}
    if asked.file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("Nothing to run: name a file or a folder, give -c CODE, or pipe code in.")
    if asked.file is None or asked.file == "-":
        _refuse_entrypoint(asked)
        with terminal.Patience("waiting for code on standard input; Ctrl-C stops"):
            code = sys.stdin.buffer.read()
        return Program(None, options, code=code, packages=asked.packages, install=asked.install)
    path = Path(asked.file)
    if not path.exists():
        raise NoSuchFile(asked.file)
    if not path.is_dir():
        _refuse_entrypoint(asked)
    return Program(
        path,
        _with_input(options),
        asked.entrypoint,
        asked.exclude,
        packages=asked.packages,
        install=asked.install,
    )


def _refuse_entrypoint(asked: Asked) -> None:
    if asked.entrypoint is not None:
        raise click.UsageError("--entrypoint is for folders.")


def _with_input(job: Mapping[str, Any]) -> dict[str, Any]:
    """The options with what is piped in as the program's input, unless --stdin says otherwise."""
    options = dict(job)
    if "stdin" in options or not _is_piped():
        return options
    with terminal.Patience("waiting for the end of standard input; </dev/null if the program reads none"):
        data = sys.stdin.buffer.read(MOST_INPUT + 1)
    if len(data) > MOST_INPUT:
        raise click.UsageError(
            f"Standard input has more than {MOST_INPUT >> 20} MiB: send a folder with a file."
        )
    if data:
        options["stdin"] = data.decode("utf-8", "surrogateescape")
    return options


def _is_piped() -> bool:
    """Whether standard input is a pipe, a file or a socket: neither a terminal nor /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _noticed(folder: Path, entrypoint: str) -> str | None:
    from sandrun_client import dependencies  # noqa: PLC0415

    read = {}
    for name in (dependencies.REQUIREMENTS, dependencies.PACKAGE_JSON):
        if (folder / name).is_file():
            read[name] = (folder / name).read_bytes()
    return dependencies.noticed(entrypoint, read)


def _directory_options(
    folder: Path, entrypoint: str | None, given: Mapping[str, Any]
) -> tuple[str, JobOptions]:
    """The entrypoint, and job.json's words with those of the command line over them. Raises UsageError."""
    options: dict[str, Any] = {}
    place = folder / MANIFEST
    try:
        options = json.loads(place.read_bytes())
    except FileNotFoundError:
        pass
    except ValueError:
        raise click.UsageError(f"{place} is not JSON.") from None
    if not isinstance(options, dict):
        raise click.UsageError(f"{place} is not a JSON object.")
    for name in options:
        if name not in failures.FIELDS and (meant := failures.meant_field(name)):
            raise click.UsageError(f"{place} has the unknown field {name!r}.{meant}")
    named = options.pop("entrypoint", None)
    entrypoint = entrypoint or named or _main_of(folder)
    return entrypoint, JobOptions(**{**options, **given})  # type: ignore[typeddict-item]


def _main_of(folder: Path) -> str:
    found = [name for name in MAINS if (folder / name).is_file()]
    if len(found) != 1:
        which = f"it has {' and '.join(found)}" if found else f"it has no {MANIFEST} and no main file"
        raise click.UsageError(f"Say what to run in {folder} with --entrypoint: {which}.")
    return found[0]
