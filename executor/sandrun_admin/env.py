"""`sandrun env`: build, list, remove and lock environments."""

import argparse
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from sandrun_admin import builds
from sandrun_shared import environments, settings

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
    for name, text in (
        ("build", "build environments from their locks (root)"),
        ("list", "list environments and whether they are built"),
        ("remove", "delete what was built (root)"),
        ("lock", "write the locks anew: versions and hashes of all packages"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("--config", type=Path, help=f"settings file (default: {settings.DEFAULT_PATH})")
        if name != "list":
            group = action.add_mutually_exclusive_group(required=True)
            group.add_argument("names", nargs="*", default=[], metavar="NAME")
            group.add_argument("--all", action="store_true", help="every environment")
        if name == "lock":
            action.add_argument("--upgrade", action="store_true", help="take the newest versions")


def run(arguments: argparse.Namespace) -> int:
    """Do it. Raises SettingsError, OSError; 1 when one of several failed."""
    executor = settings.load(arguments.config).executor
    folder = Path(executor.environments_dir)
    files = environments.definition_files(executor.environment_definitions)
    if arguments.action == "list":
        return _list(files, folder)
    if arguments.action == "remove" and arguments.all:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != ".cache")
    else:
        names = sorted(files) if arguments.all else arguments.names
    failed = 0
    for name in names:
        try:
            _one(arguments, name, files, executor)
        except (builds.BuildError, environments.DefinitionError) as error:
            _say(f"{name}: {error}")
            failed = 1
    return failed


def _one(
    arguments: argparse.Namespace, name: str, files: dict[str, Path], executor: settings.Executor
) -> None:
    folder = Path(executor.environments_dir)
    if arguments.action == "remove":
        builds.remove(name, folder, _REMOVE_SECONDS)
        _say(f"{name}: removed")
        return
    if name not in files:
        raise environments.DefinitionError(
            f"there is no such environment; there is: {', '.join(sorted(files))}"
        )
    definition = environments.load(files[name])
    if arguments.action == "lock":
        write_lock(definition, files[name], upgrade=arguments.upgrade)
    elif arguments.all and not definition.packages:
        return
    else:
        digest = builds.build(name, definition, files[name], folder, _say, uid=executor.first_uid - 1)
        _say(f"{name}: {folder / name / digest} is ready")


def write_lock(definition: environments.Definition, path: Path, *, upgrade: bool = False) -> None:
    """Write the lock beside a definition. Raises BuildError, OSError."""
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


def _list(files: dict[str, Path], folder: Path) -> int:
    rows = []
    for name, path in sorted(files.items()):
        try:
            definition = environments.load(path)
            state, digest = builds.listed(name, definition, path, folder)
            rows.append((name, state, digest, definition.description))
        except (builds.BuildError, environments.DefinitionError) as error:
            rows.append((name, f"unusable: {error}", "", ""))
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, (14, 22, 17, 0), strict=True)).rstrip())
    return 0


def _say(text: str) -> None:
    print(f"sandrun: {text}", file=sys.stderr, flush=True)
