"""Builds environments: completely in another folder, then switched to atomically."""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from uv import find_uv_bin

from sandrun_admin import unprivileged
from sandrun_shared.environments import (
    CURRENT,
    DEFAULT,
    HOME,
    INTERPRETERS,
    MAX_LINKS,
    RECORD,
    Built,
    Definition,
    DefinitionError,
    current,
    digest_of,
    fill,
    headline,
    lock_path,
    read_built,
    read_lock,
)

PARTIAL, REMOVED = ".partial", ".removed"
_POLL_SECONDS = 0.2
_VERSION = "import platform; print(platform.python_version())"
_COMPILE = "import compileall; compileall.compile_dir({0!r}, quiet=2, workers=0)"
_PREPARE_SECONDS = 600.0

Say = Callable[[str], None]


class BuildError(Exception):
    """An environment could not be built or removed; the text says what to do."""


def build(
    name: str,
    definition: Definition,
    path: Path,
    folder: Path,
    say: Say,
    *,
    uid: int,
    compile_all: bool = True,
) -> str:
    """Build one environment unless it is there already; the digest.

    What was interrupted goes on where it stopped: packages that were fetched are in the cache. If we are
    root, code of packages runs as uid, which must be nobody else's. Without compile_all only the modules that
    `definition` names are compiled. Raises BuildError, DefinitionError, OSError.
    """
    if name == DEFAULT or not definition.packages:
        raise BuildError(f"{name} names no packages, so there is nothing to build")
    lock = read_lock(definition, path)
    python = INTERPRETERS[definition.interpreter]
    version = _run([python, "-I", "-c", _VERSION], python).strip()
    digest = digest_of(definition, lock, version)
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    with _alone(home, say):
        if not (home / digest / RECORD).is_file():
            work = home / (digest + PARTIAL)
            say(f"{name}: building {digest} for Python {version}")
            _install(work, python, lock_path(path), folder / ".cache", say)
            say(f"{name}: importing {len(definition.modules)} modules")
            _prepare(work, definition, uid, compile_all=compile_all)
            say(f"{name}: writing it to the disk")
            _finish(work, name, definition, digest, version)
            os.rename(work, home / digest)
        _point(home, digest)
        prune(home, keep=digest)
    return digest


def remove(name: str, folder: Path, seconds: float) -> None:
    """Offer an environment no more and delete its builds. Raises BuildError when one stays in use so long."""
    home = folder / name
    if not home.is_dir():
        raise BuildError(f"{name} is not built")
    with _alone(home, lambda _: None):
        (home / CURRENT).unlink(missing_ok=True)
        deadline = time.monotonic() + seconds
        while busy := prune(home, keep=""):
            if time.monotonic() > deadline:
                raise BuildError(f"{', '.join(busy)} of {name} is in use by a job: run this again later")
            time.sleep(_POLL_SECONDS)
        shutil.rmtree(home)
    if not any(entry.is_dir() for entry in folder.iterdir() if entry.name != ".cache"):
        shutil.rmtree(folder / ".cache", ignore_errors=True)


def prune(home: Path, keep: str) -> list[str]:
    """Delete every build but one; the digests of those that an executor still uses."""
    busy = []
    for entry in sorted(home.iterdir()):
        if entry.name == keep or entry.is_symlink() or not entry.is_dir():
            continue
        if entry.suffix == REMOVED:
            shutil.rmtree(entry)
        elif entry.suffix == PARTIAL:
            if entry.stem != keep:
                shutil.rmtree(entry)
        elif _unused(entry):
            gone = entry.with_suffix(REMOVED)
            entry.rename(gone)  # in one step: what is half deleted must not look like a build
            shutil.rmtree(gone)
        else:
            busy.append(entry.name)
    return busy


def listed(name: str, definition: Definition, path: Path, folder: Path) -> tuple[str, str]:
    """(state, digest): built, stale (another definition, lock or Python), not built, or nothing to build."""
    if not definition.packages:
        return "needs no build", ""
    digest = current(folder, name)
    if not digest:
        return "not built", ""
    try:
        built = read_built(folder / name / digest)
        lock = read_lock(definition, path)
    except DefinitionError as error:
        return f"unusable: {error}", digest
    python = INTERPRETERS[definition.interpreter]
    version = _run([python, "-I", "-c", _VERSION], python).strip()
    state = "built" if digest_of(definition, lock, version) == built.digest else "stale: build it again"
    return state, digest


def _install(work: Path, python: str, lock: Path, cache: Path, say: Say) -> None:
    uv = find_uv_bin()
    # uv runs the interpreter in it, and with it what a package of an earlier attempt has left for its start.
    shutil.rmtree(work, ignore_errors=True)
    options = ["--relocatable", "--no-project", "--no-python-downloads"]
    _uv([uv, "venv", "--quiet", *options, "--python", python, str(work)], cache)
    say(f"{work.parent.name}: installing what {lock.name} pins")
    # Wheels only: nothing of a package runs while it is installed.
    command = [uv, "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
    command += ["--python", str(work / "bin" / "python"), "--link-mode", "hardlink"]
    _uv([*command, "-r", str(lock)], cache)


def _uv(command: list[str], cache: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL"))}
    environ["UV_CACHE_DIR"] = str(cache)
    if subprocess.run(command, env=environ, check=False, umask=0o022).returncode:
        raise BuildError(
            f"uv could not do it; its words are above. To go on, run the command again ({command[1]})"
        )


def _prepare(work: Path, definition: Definition, uid: int, *, compile_all: bool) -> None:
    """Import every module once: what cannot be imported fails here, and caches in HOME are filled."""
    (work / "home").mkdir()
    drops = os.geteuid() == 0
    place = unprivileged.MOUNTED if drops else work
    home = str(place / "home")
    environ = {"PATH": f"{place}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": home, "LANG": "C.UTF-8"}
    environ |= {key: fill(value, home, str(place)) for key, value in definition.variables.items()}
    lines = [
        f"import os; os.chdir({home!r})",
        *(f"import {module}" for module in definition.modules),
        definition.prepare,
    ]
    python = str(place / "bin" / "python")
    commands = [[python, "-P", "-c", "\n".join(lines)]]
    if compile_all:
        # Without what a package has for the interpreter's start; what cannot be compiled is not imported.
        commands.append([python, "-ISc", _COMPILE.format(str(place / "lib"))])
    writable = (work / "home", work / "lib")  # not where root goes on writing
    with unprivileged.lent(writable, uid) if drops else contextlib.nullcontext():
        for words in commands:
            command = unprivileged.command(work, uid, words) if drops else words
            _run(command, "importing its modules failed", environ)


def _run(command: list[str], subject: str, environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env=environ or {},
        cwd="/",
        umask=0o022,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PREPARE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"{subject}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _finish(work: Path, name: str, definition: Definition, digest: str, version: str) -> None:
    """Make it readable by jobs, write the record, and everything to the disk."""
    work.chmod(0o755)
    for top, folders, files in os.walk(work):
        for entry in (*folders, *files):
            path = os.path.join(top, entry)
            if not os.path.islink(path):
                mode = os.stat(path).st_mode
                os.chmod(path, (mode | (0o555 if mode & 0o100 else 0o444)) & 0o755)
    packages = tuple(sorted(_packages(work)))
    built = Built(
        name=name,
        description=definition.description,
        digest=digest,
        python=version,
        packages=packages,
        modules=definition.modules,
        variables={key: fill(value, HOME) for key, value in definition.variables.items()},
        links=tuple(_links(work / "home")),
        disk_bytes=sum(path.lstat().st_size for path in work.rglob("*")),
        headline=headline(definition.packages, packages),
    )
    (work / RECORD).write_bytes(msgspec.json.encode(built))
    # All of it, in one call, instead of a descriptor for each of some ten thousand files (sync(1)).
    _run(["/usr/bin/sync", "--file-system", str(work)], "sync")


def _packages(work: Path) -> Iterator[str]:
    for info in work.glob("lib/python3*/site-packages/*.dist-info"):
        name, _, version = info.stem.rpartition("-")
        yield f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def _links(home: Path) -> Iterator[str]:
    """Lay out a job's home: folders, and links to the files in them."""
    entries = sorted(path for path in home.rglob("*") if path.is_dir() or path.is_file())
    if len(entries) > MAX_LINKS:
        raise BuildError(f"the modules leave {len(entries)} files at home; at most {MAX_LINKS} can be kept")
    for path in entries:
        yield str(path.relative_to(home)) + ("/" if path.is_dir() else "")


def _point(home: Path, digest: str) -> None:
    link = home / (CURRENT + ".new")
    link.unlink(missing_ok=True)
    link.symlink_to(digest)
    link.rename(home / CURRENT)
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unused(build: Path) -> bool:
    """Whether no executor holds the record's lock, as it does while a job can run from this build."""
    try:
        with (build / RECORD).open("rb") as record:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True


@contextlib.contextmanager
def _alone(home: Path, say: Say) -> Iterator[None]:
    """Hold the lock of this environment's builder."""
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{home.name}: waiting for another build of it")
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
