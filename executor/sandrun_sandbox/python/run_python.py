"""Runs a Python program in an interpreter that has already started, as `python3 FILE` would."""

from __future__ import annotations

import _signal
import atexit
import io
import os
import sys

from sandrun_sandbox.job import Program
from sandrun_sandbox.layout import UNBUFFERED
from sandrun_sandbox.python import cpython_unsafe as cpython
from sandrun_sandbox.python.frames import CAN_HIDE, hide

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

# Modules that every interpreter has and finalizes itself, the last two after all others.
_NEVER_SPARED = ("sys", "builtins", "__main__")


def _renew_stdio(buffered: bool) -> None:
    """Recreate the three standard streams as Py_Initialize does, with the encodings it chose.

    Unless buffered, they write through as with PYTHONUNBUFFERED (create_stdio in CPython's pylifecycle.c).
    """
    for fd, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        old = getattr(sys, "__" + name + "__")
        mode = "rb" if fd == 0 else "wb"
        size = -1 if buffered or fd == 0 else 0
        buffer: Any = io.open(fd, mode, size, closefd=False)  # noqa: SIM115, UP020 (stays open)
        raw = buffer.raw if size else buffer
        raw.name = f"<{name}>"
        interactive = raw.isatty()
        stream = io.TextIOWrapper(
            buffer,
            old.encoding,
            old.errors,
            newline="\n" if fd else None,
            line_buffering=buffered and (fd == 2 or interactive),
            write_through=not buffered,
        )
        stream.mode = "r" if fd == 0 else "w"  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, "__" + name + "__", stream)


class _Arguments(list):  # type: ignore[type-arg]
    """sys.orig_argv as a list that is freed when the interpreter clears sys, after every other module.

    By then everything that a program can observe has happened: threads joined, atexit run, streams flushed,
    modules emptied. The rest would only free memory that this process shares with the zygote, with a fault
    and a copy for each page. Therefore the process exits here (Py_FinalizeEx, finalize_modules).
    """

    code: int | None = None
    kept: list[object]

    streams: list[io.TextIOWrapper]

    def __del__(self, leave: Callable[[int], NoReturn] = os._exit) -> None:
        if self.code is None:
            return
        try:
            for stream in self.streams:
                stream.flush()  # for output of the program's last finalizers
        except Exception:
            return
        leave(self.code)


class _Modules:
    """The interpreter's table of modules, as the zygote left it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._table = sys.modules
        self._count = len(sys.modules)
        self._last = next(reversed(sys.modules))

    def spare(self) -> list[object]:
        """Remove modules by name, so that they are not finalized; returns what must be kept alive.

        Removing one would write to its reference count and so copy a page shared with the zygote. Instead the
        table is rebuilt with the others, which were inserted last.
        """
        table, others = self._table, []
        for name in reversed(table):
            if name == self._last:
                break
            others.append(name)
        if len(table) - len(others) != self._count:  # the program has removed some of the zygote's modules
            return [table.pop(name) for name in self._names if name in table]
        names = (*_NEVER_SPARED, *reversed(others))
        cpython.refill_dict(table, {name: table[name] for name in names if name in table})
        return []


def _spare_shared_modules(arguments: _Arguments, modules: _Modules) -> None:
    """Keep the zygote's modules from being finalized; the last callback of atexit."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, ValueError, OSError):
        arguments.code = None  # the interpreter exits with its own status then
        return
    arguments.streams = [stream for stream in (sys.__stdout__, sys.__stderr__) if stream is not None]
    arguments.kept += modules.spare()


def _at_the_end(
    finish: list[tuple[Any, tuple[Any, ...]]] | None, function: Any, arguments: tuple[Any, ...]
) -> None:
    """Register a callback to run after every other of atexit, including those of the zygote's modules."""
    if finish is None:
        atexit.register(function, *arguments)
    else:
        finish.append((function, arguments))


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _set_variables(program: Program) -> None:
    if program.buffered:
        os.environ.pop(UNBUFFERED, None)
    if program.variables:
        os.environ.update(program.variables)
        if "PYTHONUSERBASE" in program.variables:
            _add_user_site()


def _add_user_site() -> None:
    """Add the user's site, between the library and the system's packages, as site.main does."""
    import site  # noqa: PLC0415 (the interpreter loaded it at its start)

    site.USER_BASE = site.USER_SITE = None
    path = sys.path
    at = next((i for i, folder in enumerate(path) if folder.endswith("-packages")), len(path))
    after = path[at:]
    del path[at:]
    site.addusersitepackages({os.path.normcase(folder) for folder in path})
    path += after


def _reads_alike(source: bytes) -> bool:
    """Whether compile() and the interpreter's file reader see the same text, errors included."""
    comments = [line for line in source[:2048].split(b"\n", 2)[:2] if line.lstrip().startswith(b"#")]
    if b"\0" in source or any(b"coding" in line and b"utf-8" not in line for line in comments):
        return False
    try:
        source.decode()
    except UnicodeDecodeError:
        return False
    return True


def run(program: Program) -> None:
    """Run the program as __main__; the interpreter handles what it raises, as always.

    It runs in this function's frame, which is hidden from the program (frames.py).
    """
    _set_variables(program)
    path = os.path.join(os.getcwd(), program.entrypoint)
    words = [program.command, program.entrypoint, *program.args]
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError:
        source = b"\0"  # makes the interpreter report the error itself
    if not _reads_alike(source):
        os.execv(program.command, words)  # noqa: S606
    sys.path_importer_cache.pop(sys.argv[0], None)
    sys.argv = words[1:]
    arguments = _Arguments(words)
    sys.orig_argv = arguments
    _at_the_end(program.finish, _spare_shared_modules, (arguments, _Modules(program.spared)))
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    _renew_stdio(program.buffered)
    arguments.kept = [sys.modules["__main__"], program]
    main = type(sys)("__main__")
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    main.__dict__.update(__file__=path, __loader__=loader, __builtins__=sys.modules["builtins"])
    for name, value in (("__cached__", None), ("__annotations__", {})):
        if name in sys.modules["__main__"].__dict__:  # depends on the version
            main.__dict__[name] = value
    sys.modules["__main__"] = main
    try:
        exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)  # noqa: S102
    except SystemExit as error:
        arguments.code = _exit_code(error.code)
        del arguments
        raise
    except KeyboardInterrupt as error:
        if not CAN_HIDE:
            _print_exception(error)
            _end_by_sigint()
        raise
    except BaseException as error:
        if not CAN_HIDE:
            _print_exception(error)
            arguments.code = 1
            del arguments
            sys.exit(1)
        if getattr(sys, "excepthook", None) is sys.__excepthook__:  # otherwise the hook decides
            arguments.code = 1
        raise
    arguments.code = 0


run.__code__ = hide(run.__code__)


def _print_exception(error: BaseException) -> None:
    """Print an uncaught exception as the interpreter does, without our frame."""
    trace = error.__traceback__
    own = sys._getframe().f_code.co_filename
    while trace is not None and trace.tb_frame.f_code.co_filename == own:
        trace = trace.tb_next
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    sys.excepthook(type(error), error, trace)


def _end_by_sigint() -> NoReturn:
    # As Py_RunMain: finalize, then die of the signal, so that the parent sees it.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    os.kill(os.getpid(), _signal.SIGINT)
    sys.exit(130)
