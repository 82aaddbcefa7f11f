"""The process that becomes the job: it confines itself before it learns what to run."""

from __future__ import annotations

import _signal
import errno
import os
import resource
import stat

from sandrun_sandbox import imports, layout, messages, orders, root, unpack
from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.channel import Channel
from sandrun_sandbox.confine import Confinement, lower, within
from sandrun_sandbox.layout import THREADS, UNBUFFERED
from sandrun_sandbox.python import cpython_unsafe as cpython
from sandrun_sandbox.steps import StepError

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

ENTRYPOINT = "{entrypoint}"  # in a command, as sandrun_shared.languages says it
_EXEC_FAILED = 126
SIGCHLD = (_signal.SIGCHLD,)  # blocked in PID 1, which reads it from a descriptor
# Makes other programs write through too: C's standard streams (stdbuf(1)), Ruby's and Perl's.
_STDBUF = "/usr/libexec/coreutils/libstdbuf.so"
_WRITE_THROUGH = {
    "LD_PRELOAD": _STDBUF,
    "_STDBUF_O": "0",
    "RUBYOPT": f"-r{root.WRITE_THROUGH}/write_through.rb",
    "PERL5OPT": f"-I{root.WRITE_THROUGH} -Mwrite_through",
}
# Variables that the interpreter reads at its start; with one of these set, it must start again.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "MALLOC_", "TZ")


class Program:
    """A Python program to run in this very process.

    variables: those in addition to layout.VARIABLES, which the zygote has; spared: names of modules that
    every interpreter has; buffered: whether its output may be buffered; finish: callbacks after those that
    modules imported by the zygote have registered with atexit.
    """

    def __init__(
        self,
        command: str,
        entrypoint: str,
        args: list[str],
        variables: dict[str, str],
        spared: tuple[str, ...],
        *,
        buffered: bool = False,
        finish: list[tuple[Any, tuple[Any, ...]]] | None = None,
    ) -> None:
        self.command = command
        self.entrypoint = entrypoint
        self.args = args
        self.variables = variables
        self.spared = spared
        self.buffered = buffered
        self.finish = finish


def main(config: dict[str, Any], confinement: Confinement, link: Channel) -> Program:
    """Confine this process, receive the order, unpack, and become the program; returns to run Python warm."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGCHLD)
    try:
        confinement.enter()
        if config["preloaded"] is not None:
            config["preloaded"]["renew"]()
        link.report(messages.Ready())
        message = link.receive(messages.JobMessage)
        if message is None:
            os._exit(0)
        request, fds = message
        order = _take(request, fds)
        for kind, value in _rlimits(request):
            lower(kind, value)
        order.env = {**request.language_variables, **order.env}
        if order.env.get(UNBUFFERED) == "1" and not request.buffered:
            del order.env[UNBUFFERED]  # the zygote has the same value, so no restart is needed
        warm = request.warm and config["forks"]
        request.warm = warm and not _were_read(order.env, config["preloaded"])
        threads = dict.fromkeys(THREADS, str(request.threads))
        buffering = _buffering(config, request.buffered)
        order.env = {**threads, **request.package_variables, **buffering, **order.env}
        if request.compiler:
            for fd in fds:  # a compiler could open these, unlike a socket, through /proc/PID/fd
                os.close(fd)
            link.report(messages.Compiling())
            _compile(config, _filled_in(request.compiler, order), order)
        link.report(messages.Started())
        return _become(config, link, request, order)
    except (StepError, messages.MessageError) as error:
        link.report(error.report)
    except (OSError, ValueError, MemoryError) as error:
        # A malformed order, or a descriptor that is not a file.
        link.report(messages.Failed("take", getattr(error, "errno", 0) or 0))
    os._exit(1)


def _take(request: messages.JobMessage, fds: list[int]) -> orders.Order:
    """Receive the order, put the standard streams in place, unpack. Raises what main catches."""
    stdin, stdout, stderr, order_fd, upload_fd, snapshot_fd = fds
    order = orders.decode_order(orders.read_all(order_fd))
    for fd, target in ((stdin, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, target)
    _unpack(request, os.fsencode(order.entrypoint), upload_fd, snapshot_fd)
    return order


def _rlimits(request: messages.JobMessage) -> tuple[tuple[int, int], ...]:
    """Set the resource limits that differ between jobs (setrlimit(2))."""
    return (
        (resource.RLIMIT_FSIZE, request.disk_bytes),
        (resource.RLIMIT_NOFILE, request.open_files),
        (resource.RLIMIT_NPROC, request.processes),
    )


def _become(
    config: dict[str, Any], link: Channel, request: messages.JobMessage, order: orders.Order
) -> Program:
    command = _filled_in(request.command, order)
    if not request.warm:
        if request.stack_bytes:
            _raise_stack(request.stack_bytes)
        _exec(config, command, order)
    link.close()
    linux.close_range(3)
    words = [os.fsencode(word) for word in (*command, *order.args)]
    cpython.overwrite_command_line(config["command_line"], words)
    finish = None
    if config["preloaded"] is not None:
        finish = config["preloaded"]["finish"]
        for set_threads in config["thread_setters"] if request.threads > 1 else ():
            set_threads(request.threads)
    return Program(
        command[0],
        order.entrypoint,
        order.args,
        order.env,
        config["spared"],
        buffered=bool(request.buffered),
        finish=finish,
    )


def _buffering(config: dict[str, Any], buffered: bool | None) -> dict[str, str]:
    """Select the variables that make programs write through or buffer; None affects Python alone.

    Raises StepError where libstdbuf is missing.
    """
    if buffered is None:
        return {}
    if buffered:
        config["variables"].pop(UNBUFFERED, None)
        return {}
    if not os.path.exists(_STDBUF):
        raise StepError("write_through", errno.ENOENT)
    return _WRITE_THROUGH


def _raise_stack(value: int) -> None:
    """Raise the stack limit of the program executed next, as far as allowed (setrlimit(2))."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (within(value, hard), hard))


def _filled_in(words: tuple[str, ...], order: orders.Order) -> list[str]:
    """Fill the entrypoint, whose name may look like an option, into a command of the table of languages."""
    entrypoint = ("./" if order.entrypoint.startswith("-") else "") + order.entrypoint
    return [word.replace(ENTRYPOINT, entrypoint) for word in words]


def _exec(config: dict[str, Any], command: list[str], order: orders.Order) -> NoReturn:
    linux.close_range(3)
    # What the interpreter ignores, another program would inherit.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    try:
        program = command[0]
        if program.startswith("./"):
            _allow_execution(program)
            program = _under_our_name(program)
        variables = {**config["variables"], **order.env}
        os.execve(program, command + order.args, variables)  # noqa: S606
    except OSError as error:
        os.write(2, f"sandrun: {os.path.basename(command[0])}: {error.strerror}\n".encode())
    os._exit(_EXEC_FAILED)


def _allow_execution(path: str) -> None:
    """Make the uploaded program executable, whatever mode its archive has for it."""
    mode = os.stat(path).st_mode
    if not mode & stat.S_IXUSR:
        os.chmod(path, stat.S_IMODE(mode) | stat.S_IRUSR | stat.S_IXUSR)


def _under_our_name(path: str) -> str:
    """Find the path to execute a program by under our name; descriptors above 2 must be closed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if os.read(fd, 2) == b"#!":
        return path  # its interpreter is given the path and opens it
    if fd != root.EXECUTED_FD:
        os.dup2(fd, root.EXECUTED_FD, inheritable=False)
    return root.EXECUTED


def _compile(config: dict[str, Any], command: list[str], order: orders.Order) -> None:
    """Run the compiler with empty input; its output goes to the job's stderr. Raises StepError."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(2, 1)
        order.args = []
        _exec(config, command, order)
    _, status = os.waitpid(pid, 0)
    if status:
        raise StepError("compile", 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else status >> 8)


def _were_read(names: Iterable[str], preloaded: dict[str, Any] | None) -> bool:
    """Whether the interpreter or a module that it imported has already read one of these variables."""
    if any(name.startswith(_READ_AT_START) for name in names):
        return True
    return preloaded is not None and any(
        name in preloaded["read"] or name.startswith(preloaded["read_by_libraries"]) for name in names
    )


def _unpack(request: messages.JobMessage, entrypoint: bytes, upload_fd: int, snapshot_fd: int) -> None:
    """Unpack the upload into the work directory; archives in a child, which keeps the parser out of here."""
    if request.upload == "bundle":
        code = _unpack_here(request, entrypoint, upload_fd, snapshot_fd)
    else:
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                unpack.load(request.upload)
                imports.end()  # a member of the archive may have a library's name
                code = _unpack_here(request, entrypoint, upload_fd, snapshot_fd)
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        code = 3 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    if code:
        raise StepError("unpack" if code != 2 else "disk", code)


def _unpack_here(request: messages.JobMessage, entrypoint: bytes, upload_fd: int, snapshot_fd: int) -> int:
    """Unpack here; returns 0 if done, 1 if refused (the reason goes to stderr), 2 if there is no room."""
    work = os.open(layout.WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        snapshot = unpack.unpack(request.upload, upload_fd, work, entrypoint=entrypoint)
        view = memoryview(snapshot)
        while view:
            view = view[os.write(snapshot_fd, view) :]
    except unpack.UnpackError as error:
        os.write(2, f"sandrun: {error}\n".encode("utf-8", "backslashreplace"))
        return 2 if error.disk_full else 1
    finally:
        os.close(work)
    return 0
