"""`sandrun env`: build, list, remove and lock environments."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
from uv import find_uv_bin

from sandrun_admin import builds
from sandrun_shared import commandline, environments, settings

_REMOVE_SECONDS = 30.0
_LOCK_OPTIONS = (
    "--quiet",
    "--universal",  # markers for newer interpreters and other machines
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--only-binary",
    ":all:",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-annotate",
    "--no-header",
)


@dataclass(frozen=True)
class Chosen:
    """Which environments a command line names: some, or every one."""

    names: tuple[str, ...]
    every: bool


def names(config: Path | None = None) -> list[str]:
    """The names of all environments that are defined here. Raises SettingsError, OSError."""
    executor = settings.load(config).executor
    return sorted(environments.definition_files(executor.environment_definitions))


def each(
    action: Literal["build", "remove", "lock"],
    chosen: Chosen,
    config: Path | None,
    *,
    as_json: bool = False,
    upgrade: bool = False,
) -> int:
    """Build, remove or lock environments; OWN_FAILURE when that failed for one of them.

    Raises SettingsError, OSError, UsageError.
    """
    if bool(chosen.names) == chosen.every:
        raise click.UsageError("Name environments, or give --all.", click.get_current_context(silent=True))
    executor = settings.load(config).executor
    folder = Path(executor.environments_dir)
    files = environments.definition_files(executor.environment_definitions)
    if action == "remove" and chosen.every:
        wanted = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != ".cache")
    else:
        wanted = sorted(files) if chosen.every else list(chosen.names)
    done: dict[str, str] = {}
    failed: dict[str, str] = {}
    for name in wanted:
        try:
            if (text := _one(action, name, files, executor, every=chosen.every, upgrade=upgrade)) is not None:
                done[name] = text
                _say(f"{name}: {text}")
        except (builds.BuildError, environments.DefinitionError) as error:
            failed[name] = str(error)
            _say(f"{name}: {error}")
    if as_json:
        commandline.print_json({"done": done, "failed": failed})
    return commandline.OWN_FAILURE if failed else 0


def _one(
    action: str,
    name: str,
    files: dict[str, Path],
    executor: settings.Executor,
    *,
    every: bool,
    upgrade: bool,
) -> str | None:
    """What was done, None for nothing."""
    folder = Path(executor.environments_dir)
    if action == "remove":
        if not (folder / name).is_dir() and name not in files:
            raise _unknown(name, files)
        builds.remove(name, folder, _REMOVE_SECONDS)
        return "removed"
    if name not in files:
        raise _unknown(name, files)
    definition = environments.load(files[name])
    if action == "lock":
        write_lock(definition, files[name], upgrade=upgrade)
        return "locked"
    if every and not definition.packages:
        return None
    digest = builds.build(name, definition, files[name], folder, _say, uid=executor.first_uid - 1)
    return f"{folder / name / digest} is ready"


def _unknown(name: str, files: dict[str, Path]) -> environments.DefinitionError:
    known = ", ".join(sorted(files))
    return environments.DefinitionError(
        f"there is no such environment; there are {known}.{commandline.nearest(name, files)}"
    )


def write_lock(definition: environments.Definition, path: Path, *, upgrade: bool = False) -> None:
    """Write the lock next to a definition. Raises BuildError, OSError."""
    lock = environments.lock_path(path)
    new = lock.with_suffix(".lock.new")
    # uv keeps the versions that it finds in the file it is to write.
    new.write_text(lock.read_text() if lock.exists() and not upgrade else "")
    command = [find_uv_bin(), "pip", "compile", *_LOCK_OPTIONS, "--output-file", str(new), "-"]
    try:
        done = subprocess.run(
            command, input="\n".join(definition.packages), stdout=subprocess.DEVNULL, text=True, check=False
        )
        if done.returncode:
            raise builds.BuildError("uv found no set of wheels that fits; its words are above")
        lock.write_text(environments.lock_header(definition) + new.read_text())
    finally:
        new.unlink(missing_ok=True)


def listing(config: Path | None, *, as_json: bool = False) -> int:
    """Print every environment and whether it is built. Raises SettingsError, OSError."""
    executor = settings.load(config).executor
    folder = Path(executor.environments_dir)
    rows = []
    for name, path in sorted(environments.definition_files(executor.environment_definitions).items()):
        try:
            definition = environments.load(path)
            state, digest = builds.listed(name, definition, path, folder)
            rows.append((name, state, digest, definition.description))
        except (builds.BuildError, environments.DefinitionError) as error:
            rows.append((name, f"unusable: {error}", "", ""))
    if as_json:
        keys = ("name", "state", "digest", "description")
        commandline.print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return 0
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, (14, 22, 17, 0), strict=True)).rstrip())
    return 0


def _say(text: str) -> None:
    print(f"sandrun: {text}", file=sys.stderr, flush=True)
