"""Runs a Python program in an interpreter that has already started, as `python3 FILE` would."""

from __future__ import annotations

import _signal
import atexit
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from sandrun_executor.sandbox.job import Program


def _renew_stdio() -> None:
    """Make the three standard streams again as Py_Initialize does, with the encodings it chose."""
    for fd, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        old = getattr(sys, "__" + name + "__")
        mode = "rb" if fd == 0 else "wb"
        buffer = io.open(fd, mode, -1, closefd=False)  # noqa: SIM115, UP020 (stays open)
        raw = buffer.raw  # type: ignore[attr-defined]
        raw.name = f"<{name}>"
        interactive = raw.isatty()
        stream = io.TextIOWrapper(
            buffer,
            old.encoding,
            old.errors,
            newline="\n" if fd else None,
            line_buffering=fd == 2 or interactive,
        )
        stream.mode = "r" if fd == 0 else "w"  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, "__" + name + "__", stream)


class _Arguments(list):  # type: ignore[type-arg]
    """A list that is sys.orig_argv, and is freed when the interpreter clears sys, after every other module.

    By then all that a program can notice has happened: threads joined, atexit run, streams flushed, modules
    emptied. What would follow is freeing the memory that this process shares with the zygote, page by
    page, each a fault and a copy; so the process ends here (Py_FinalizeEx, finalize_modules).
    """

    code: int | None = None
    kept: list[object]

    streams: list[io.TextIOWrapper]

    def __del__(self, leave: Callable[[int], NoReturn] = os._exit) -> None:
        if self.code is None:
            return
        try:
            for stream in self.streams:
                stream.flush()  # what the program's last finalizers printed
        except Exception:
            return
        leave(self.code)


def _spare_shared_modules(arguments: _Arguments, baseline: frozenset[str]) -> None:
    """Keep the modules of the zygote from being taken apart; the last thing that atexit calls."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, ValueError, OSError):
        arguments.code = None  # the interpreter has a status of its own for this
        return
    arguments.streams = [stream for stream in (sys.__stdout__, sys.__stderr__) if stream is not None]
    keep = baseline - {"sys", "builtins", "__main__"}
    arguments.kept += [sys.modules.pop(name) for name in keep if name in sys.modules]


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _forget_ourselves(baseline: frozenset[str]) -> list[object]:
    """Our own modules, out of the program's sight but alive: to free them would copy them page by page."""
    return [sys.modules.pop(name) for name in list(sys.modules) if name not in baseline]


def run(program: Program) -> NoReturn:
    """Run the program as __main__ and leave through SystemExit, so that the interpreter ends as always."""
    if program.environment:
        os.environ.update(program.environment)
    path = os.path.join(os.getcwd(), program.entrypoint)
    sys.argv = [program.entrypoint, *program.args]
    arguments = _Arguments(["python3", program.entrypoint, *program.args])
    sys.orig_argv = arguments
    atexit.register(_spare_shared_modules, arguments, program.baseline)
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    _renew_stdio()
    arguments.kept = [sys.modules["__main__"], program, *_forget_ourselves(program.baseline)]
    main = type(sys)("__main__")
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    main.__dict__.update(
        __file__=path,
        __cached__=None,
        __loader__=loader,
        __builtins__=sys.modules["builtins"],
        __annotations__={},
    )
    sys.modules["__main__"] = main
    try:
        with open(path, "rb") as file:
            source = file.read()
        exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)  # noqa: S102
    except SystemExit as error:
        arguments.code = _exit_code(error.code)
        del arguments
        raise
    except KeyboardInterrupt as error:
        _print_exception(error)
        _end_by_sigint()
    except BaseException as error:
        _print_exception(error)
        arguments.code = 1
        del arguments
        sys.exit(1)
    arguments.code = 0
    del arguments
    sys.exit(0)


def _print_exception(error: BaseException) -> None:
    """What the interpreter does with an exception that nobody caught, without the frame of ours."""
    trace = error.__traceback__
    own = sys._getframe().f_code.co_filename
    while trace is not None and trace.tb_frame.f_code.co_filename == own:
        trace = trace.tb_next
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    sys.excepthook(type(error), error, trace)


def _end_by_sigint() -> NoReturn:
    # As Py_RunMain: finish, then die of the signal so that the parent sees it.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    os.kill(os.getpid(), _signal.SIGINT)
    sys.exit(130)
