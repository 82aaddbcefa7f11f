"""The environments of this machine: which exist, which are built, and which build jobs get now."""

import dataclasses
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from sandrun_executor.sandboxes.zygote import Image
from sandrun_shared.environments import (
    DEFAULT,
    INTERPRETERS,
    PLACE,
    RECORD,
    Built,
    DefinitionError,
    current,
    definition_files,
    load,
    read_built,
)
from sandrun_shared.languages import Language
from sandrun_shared.protocol import Environment

_OF_DEFAULT = "The interpreters as the system has them; Python with its standard library alone"
_PATH = f"{PLACE}/bin:/usr/bin:/bin"


class Build:
    """A build that is held: `sandrun env` deletes it only after close."""

    def __init__(self, folder: Path, *, import_ahead: bool = True) -> None:
        """Open the build. Raises DefinitionError if it is missing or anybody but root can change it."""
        self._import_ahead = import_ahead
        try:
            state = folder.stat()
            self._lock = os.open(folder / RECORD, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DefinitionError(f"{folder}: {error.strerror}") from None
        try:
            # Its code runs in a process of root.
            if state.st_uid != 0 or state.st_mode & 0o022:
                raise DefinitionError(f"{folder} can be changed by others than root")
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            self.record: Built = read_built(folder)
        except BaseException:
            os.close(self._lock)
            raise
        self._folder = folder

    @property
    def name(self) -> str:
        """Of the environment."""
        return self.record.name

    def image(self, *, preload: bool) -> Image:
        """Describe the build to its zygote."""
        record = self.record
        return Image(
            folder=str(self._folder),
            python=self.python if self._import_ahead else "",
            links=list(record.links),
            variables={"PATH": _PATH, "VIRTUAL_ENV": PLACE, **record.variables},
            modules=record.modules if preload and self._import_ahead else (),
        )

    def runs(self, language: Language) -> Language:
        """Adapt a language to this environment: its interpreter runs the programs, if it has one for them."""
        command, *words = language.command
        if command != INTERPRETERS["python3"]:
            return language
        return dataclasses.replace(language, command=(self.python, *words))

    @property
    def python(self) -> str:
        """The interpreter, as a job finds it."""
        return f"{PLACE}/bin/python3"

    def close(self) -> None:
        """Allow its deletion."""
        os.close(self._lock)


class BuildStore:
    """The folder of builds, read each time, so that a new build needs no restart."""

    def __init__(self, folder: str, definitions: str, python: str, *, import_ahead: bool = True) -> None:
        """python: the version of the system's interpreter; a build for another 3.x does not work with it.

        import_ahead: whether code of an environment's packages may run in a zygote.
        """
        self._import_ahead = import_ahead
        self._folder = Path(folder)
        self._definitions = definitions
        self._python = python
        self._descriptions: dict[Path, tuple[int, str]] = {}  # by definition, with its time of modification

    def names(self) -> list[str]:
        """List every environment that is built, sorted."""
        try:
            entries = sorted(os.listdir(self._folder))
        except OSError:
            return []
        return [name for name in entries if name != DEFAULT and current(self._folder, name)]

    def current(self, name: str) -> str:
        """Look up the digest of the build that a new job gets, "" if the environment is not built."""
        return current(self._folder, name)

    def open(self, name: str) -> Build:
        """Open the current build, held until it is closed. Raises DefinitionError, which says what to do."""
        digest = self.current(name)
        if not digest:
            raise DefinitionError(self.why_missing(name))
        build = Build(self._folder / name / digest, import_ahead=self._import_ahead)
        if _minor(build.record.python) != _minor(self._python):
            built_for = build.record.python
            build.close()
            raise DefinitionError(
                f"{name} was built for Python {built_for}, not {self._python}: build it again"
            )
        return build

    def why_missing(self, name: str) -> str:
        """Say why an environment cannot be used."""
        if name in definition_files(self._definitions):
            return f"the environment {name} is not built on this worker"
        return f"there is no environment {name}"

    def described(self, interpreters: Iterable[str], warm: Iterable[str]) -> tuple[Environment, ...]:
        """Describe all environments: `default` first, those that are not built last."""
        names, warm = tuple(interpreters), frozenset(warm)
        found = [Environment(DEFAULT, _OF_DEFAULT, (), names, warm=True)]
        for name in self.names():
            try:
                build = self.open(name)
            except DefinitionError:
                continue
            record = build.record
            found.append(
                Environment(
                    name,
                    record.description,
                    record.packages,
                    names,
                    warm=self._import_ahead and name in warm,
                    disk_bytes=record.disk_bytes,
                    headline=record.headline,
                )
            )
            build.close()
        there = {item.name for item in found}
        for name, path in definition_files(self._definitions).items():
            if name not in there:
                found.append(Environment(name, self._description(path), built=False))
        return tuple(found)

    def _description(self, path: Path) -> str:
        try:
            changed = path.stat().st_mtime_ns
            if self._descriptions.get(path, (0, ""))[0] != changed:
                self._descriptions[path] = changed, load(path).description
            return self._descriptions[path][1]
        except (OSError, DefinitionError):
            return ""


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
