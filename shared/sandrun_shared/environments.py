"""Environments: their definitions and builds.

A definition is NAME.toml with NAME.lock in the same folder. A build is the folder
`<environments_dir>/NAME/<digest>`, complete once the link `current` next to it names it.
"""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

FORMAT = 1  # of a build; one of another format is rebuilt
CURRENT = "current"
RECORD = "environment.json"
DEFAULT = "default"
# Where a job finds its environment and its home, which replace `{environment}` and `{home}` in variables.
PLACE, HOME = "/usr/environment", "/home/job"
INTERPRETERS = {"python3": "/usr/bin/python3"}
MAX_LINKS = 64  # entries that a build may put into a job's home
NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$"

Module = Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]
Variable = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Value = Annotated[str, Meta(pattern=r"^[^\0]*$", max_length=1024)]
# A name with version specifiers, but no URL, path or option of an installer.
Requirement = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,_-]+\])?\s*([<>=!~]=?\s*[0-9][0-9A-Za-z.*]*,?\s*)*$"
    ),
]


class DefinitionError(Exception):
    """A definition or build cannot be used; the text says why."""


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """NAME.toml: packages to install, modules to import ahead of jobs, variables."""

    description: Annotated[str, Meta(min_length=1, max_length=200)]
    interpreter: Literal["python3"] = "python3"
    packages: Annotated[tuple[Requirement, ...], Meta(max_length=200)] = ()
    modules: Annotated[tuple[Module, ...], Meta(max_length=200)] = ()
    variables: dict[Variable, Value] = {}
    prepare: str = ""

    def asked(self) -> str:
        """SHA-256 in hex of the input of a lock; if it differs, the lock is stale."""
        text = json.dumps([self.interpreter, sorted(self.packages)])
        return hashlib.sha256(text.encode()).hexdigest()


def headline(asked: Iterable[str], packages: Iterable[str]) -> tuple[str, ...]:
    """Of packages (`name==version`) those that requirements ask for by name, in the order of these."""
    by_name = {package.partition("==")[0]: package for package in packages}
    names = [re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in asked]
    normal = [re.sub(r"[-_.]+", "-", name).lower() for name in names]
    return tuple(by_name[name] for name in dict.fromkeys(normal) if name in by_name)


class Built(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """RECORD of a build: everything that an executor needs to know of it.

    python is the full version it was built with; packages as `name==version`, headline those of them that the
    definition names, in its order; links are paths in `home`, folders with a trailing slash.
    """

    name: str
    description: str
    digest: str
    python: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    variables: dict[str, str]
    links: Annotated[tuple[str, ...], Meta(max_length=MAX_LINKS)]
    disk_bytes: int
    format: int = FORMAT
    headline: tuple[str, ...] = ()  # not in what was built before there was such a field


def shipped_folder() -> Path:
    """Find the definitions shipped with Sandrun: in the package or in the checkout."""
    packaged = Path(__file__).with_name("environment_files")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "deploy" / "environments"


def definition_files(own: str) -> dict[str, Path]:
    """List the files of definitions by name; an operator's replaces a shipped one of the same name."""
    found: dict[str, Path] = {}
    for folder in (shipped_folder(), Path(own)):
        for path in sorted(folder.glob("*.toml")):
            if re.match(NAME_PATTERN, path.stem):
                found[path.stem] = path
    return found


def load(path: Path) -> Definition:
    """Read one definition. Raises DefinitionError."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Definition)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise DefinitionError(f"{path}: {error}") from None


def lock_path(definition_path: Path) -> Path:
    """Return the path of a definition's lock."""
    return definition_path.with_suffix(".lock")


def lock_header(definition: Definition) -> str:
    """Make the first line of a lock, which holds the digest of its input."""
    return f"# asked: sha256:{definition.asked()}\n"


def read_lock(definition: Definition, path: Path) -> str:
    """Read a lock. Raises DefinitionError if it is missing, stale, or has a pin without a hash."""
    lock = lock_path(path)
    try:
        text = lock.read_text()
    except OSError as error:
        raise DefinitionError(f"{lock}: {error.strerror}; make it with: sandrun env lock") from None
    if not text.startswith(lock_header(definition)):
        raise DefinitionError(f"{lock} is stale: {path.name} asks for other packages. Run: sandrun env lock")
    entries = text.replace("\\\n", " ").splitlines()
    pins = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    loose = [pin.split()[0] for pin in pins if "==" not in pin or "--hash=sha256:" not in pin]
    if loose:
        raise DefinitionError(f"{lock}: without a version or a hash: {', '.join(loose)}")
    return text


def digest_of(definition: Definition, lock: str, python: str) -> str:
    """Compute the name of a build's folder from definition, lock and interpreter."""
    body = msgspec.json.encode([FORMAT, definition, lock, python], order="sorted")
    return hashlib.sha256(body).hexdigest()[:16]


def current(folder: Path, name: str) -> str:
    """Look up the digest of the build that jobs of this environment get; "" if none is built."""
    try:
        target = os.readlink(folder / name / CURRENT)
    except OSError:
        return ""
    return target if re.fullmatch("[0-9a-f]{16}", target) else ""


def read_built(folder: Path) -> Built:
    """Read the record of a build. Raises DefinitionError."""
    try:
        built = msgspec.json.decode((folder / RECORD).read_bytes(), type=Built)
    except (OSError, msgspec.DecodeError) as error:
        raise DefinitionError(f"{folder}: {error}") from None
    if built.format != FORMAT:
        raise DefinitionError(f"{folder} was built by another version: build it again")
    return built


def fill(value: str, home: str, place: str = PLACE) -> str:
    """Fill the home and the place of the environment into a variable's value."""
    return value.replace("{home}", home).replace("{environment}", place)
