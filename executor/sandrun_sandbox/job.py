"""The process that becomes the job: confined first, then it learns what to run."""

from __future__ import annotations

import _signal
import errno
import os
import resource
import stat

from sandrun_sandbox import imports, orders, root, unpack
from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.channel import Channel
from sandrun_sandbox.confine import Confinement, lower, within
from sandrun_sandbox.python import cpython_unsafe as cpython
from sandrun_sandbox.steps import StepError

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

ENTRYPOINT = "{entrypoint}"  # in a command, as sandrun_shared.languages says it
_EXEC_FAILED = 126
SIGCHLD = (_signal.SIGCHLD,)  # blocked in PID 1, which reads it from a descriptor
UNBUFFERED = "PYTHONUNBUFFERED"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": root.HOME,
    "USER": "job",
    "LOGNAME": "job",
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108 (the job's own)
    UNBUFFERED: "1",  # somebody may be following what a program prints
}
# What makes other programs write through too: C's standard streams (stdbuf(1)), and Ruby's and Perl's.
_STDBUF = "/usr/libexec/coreutils/libstdbuf.so"
_WRITE_THROUGH = {
    "LD_PRELOAD": _STDBUF,
    "_STDBUF_O": "0",
    "RUBYOPT": f"-r{root.WRITE_THROUGH}/write_through.rb",
    "PERL5OPT": f"-I{root.WRITE_THROUGH} -Mwrite_through",
}
# How many threads a numerical library starts.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Variables that the interpreter reads at its start: with one of these set it must start anew.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "MALLOC_", "TZ")


class Program:
    """A Python program to run in this very process.

    environment: variables besides ENVIRONMENT, which the zygote has; spared: names of modules that every
    interpreter has; buffered: whether what it writes may wait in a buffer; finish: what to call after all
    that atexit calls, where modules that the zygote imported have registered theirs.
    """

    def __init__(
        self,
        command: str,
        entrypoint: str,
        args: list[str],
        environment: dict[str, str],
        spared: tuple[str, ...],
        *,
        buffered: bool = False,
        finish: list[tuple[Any, tuple[Any, ...]]] | None = None,
    ) -> None:
        self.command = command
        self.entrypoint = entrypoint
        self.args = args
        self.environment = environment
        self.spared = spared
        self.buffered = buffered
        self.finish = finish


def reset_signals() -> None:
    """Undo what PID 1, from which this process was forked, does with signals."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGCHLD)


def reset_ignored() -> None:
    """Undo what the interpreter does with signals, before another program takes its place."""
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)


def main(config: dict[str, Any], confinement: Confinement, link: Channel) -> Program:
    """Confine this process, take the order, unpack, and become the program; returns for Python run warm.

    Descriptors of the message: stdin, stdout, stderr, order, upload, snapshot.
    """
    reset_signals()
    try:
        confinement.enter()
        if config["preloaded"] is not None:
            config["preloaded"]["renew"]()
        link.report("ready")
        message = link.receive()
        if message is None:
            os._exit(0)
        request, fds = message
        order = take(request, fds)
        for kind, value in rlimits(request):
            lower(kind, value)
        order.env = {**request["env"], **order.env}
        if order.env.get(UNBUFFERED) == "1" and not request["buffered"]:
            del order.env[UNBUFFERED]  # as it is anyway: no reason to start anew
        warm = request["warm"] and config["forks"]
        request["warm"] = warm and not _were_read(order.env, config["preloaded"])
        threads = dict.fromkeys(THREADS, str(request["threads"]))
        order.env = {**threads, **request["packages"], **_buffering(config, request["buffered"]), **order.env}
        if request["compiler"]:
            for fd in fds:  # which a compiler could open through /proc/PID/fd, as it can no socket
                os.close(fd)
            link.report("compiling")
            _compile(config, _filled_in(request["compiler"], order), order)
        link.report("started")
        return _become(config, link, request, order)
    except StepError as error:
        link.report("failed " + error.report)
    except (OSError, ValueError, MemoryError) as error:
        # An order that is none, descriptors that are no files.
        link.report(f"failed take {getattr(error, 'errno', 0) or 0}")
    os._exit(1)


def take(request: dict[str, Any], fds: list[int]) -> orders.Order:
    """The order; standard streams are in place then, the upload unpacked. Raises as main catches."""
    stdin, stdout, stderr, order_fd, upload_fd, snapshot_fd = fds
    order = orders.decode_order(orders.read_all(order_fd))
    for fd, target in ((stdin, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, target)
    _unpack(request, os.fsencode(order.entrypoint), upload_fd, snapshot_fd)
    return order


def rlimits(request: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """The resource limits that are the job's own (setrlimit(2))."""
    return (
        (resource.RLIMIT_FSIZE, request["disk_bytes"]),
        (resource.RLIMIT_NOFILE, request["open_files"]),
        (resource.RLIMIT_NPROC, request["processes"]),
    )


def _become(config: dict[str, Any], link: Channel, request: dict[str, Any], order: orders.Order) -> Program:
    command = _filled_in(request["command"], order)
    if not request["warm"]:
        if request["stack_bytes"]:
            _raise_stack(request["stack_bytes"])
        _exec(config, command, order)
    link.close()
    linux.close_range(3)
    words = [os.fsencode(word) for word in (*command, *order.args)]
    cpython.overwrite_command_line(config["command_line"], words)
    finish = None
    if config["preloaded"] is not None:
        finish = config["preloaded"]["finish"]
        for set_threads in config["thread_setters"] if request["threads"] > 1 else ():
            set_threads(request["threads"])
    return Program(
        command[0],
        order.entrypoint,
        order.args,
        order.env,
        config["spared"],
        buffered=bool(request["buffered"]),
        finish=finish,
    )


def _buffering(config: dict[str, Any], buffered: bool | None) -> dict[str, str]:
    """Variables by which programs write through, or do not; None leaves all but Python as they are.

    Raises StepError where libstdbuf is missing.
    """
    if buffered is None:
        return {}
    if buffered:
        config["environment"].pop(UNBUFFERED, None)
        return {}
    if not os.path.exists(_STDBUF):
        raise StepError("write_through", errno.ENOENT)
    return _WRITE_THROUGH


def _raise_stack(value: int) -> None:
    """Let the stack of the program that is executed next grow, as far as may be (setrlimit(2))."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (within(value, hard), hard))


def _filled_in(words: tuple[str, ...], order: orders.Order) -> list[str]:
    """A command of the table of languages for this entrypoint, whose name may look like an option."""
    entrypoint = ("./" if order.entrypoint.startswith("-") else "") + order.entrypoint
    return [word.replace(ENTRYPOINT, entrypoint) for word in words]


def _exec(config: dict[str, Any], command: list[str], order: orders.Order) -> NoReturn:
    linux.close_range(3)
    reset_ignored()
    try:
        program = command[0]
        if program.startswith("./"):
            _allow_execution(program)
            program = _under_our_name(program)
        environment = {**config["environment"], **order.env}
        os.execve(program, command + order.args, environment)  # noqa: S606
    except OSError as error:
        os.write(2, f"sandrun: {os.path.basename(command[0])}: {error.strerror}\n".encode())
    os._exit(_EXEC_FAILED)


def _allow_execution(path: str) -> None:
    """Mark the upload's own program executable, whatever mode its archive gives it."""
    mode = os.stat(path).st_mode
    if not mode & stat.S_IXUSR:
        os.chmod(path, stat.S_IMODE(mode) | stat.S_IRUSR | stat.S_IXUSR)


def _under_our_name(path: str) -> str:
    """Where to execute a program, all descriptors above 2 being closed, so that our name is its process's."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if os.read(fd, 2) == b"#!":
        return path  # its interpreter is given the path, and opens it
    if fd != root.EXECUTED_FD:
        os.dup2(fd, root.EXECUTED_FD, inheritable=False)
    return root.EXECUTED


def _compile(config: dict[str, Any], command: list[str], order: orders.Order) -> None:
    """Run the compiler; what it says goes to the job's stderr, its input is empty. Raises StepError."""
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
    """Whether the interpreter, or a module that it imported, has already looked at one of these variables."""
    if any(name.startswith(_READ_AT_START) for name in names):
        return True
    return preloaded is not None and any(
        name in preloaded["read"] or name.startswith(preloaded["read_by_libraries"]) for name in names
    )


def _unpack(request: dict[str, Any], entrypoint: bytes, upload_fd: int, snapshot_fd: int) -> None:
    """Unpack the upload into the work directory; archives in a child, whose parser leaves nothing here."""
    if request["upload"] == "bundle":
        code = _unpack_here(request, entrypoint, upload_fd, snapshot_fd)
    else:
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                unpack.load(request["upload"])
                imports.end()  # a member of the archive may have a library's name
                code = _unpack_here(request, entrypoint, upload_fd, snapshot_fd)
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        code = 3 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    if code:
        raise StepError("unpack" if code != 2 else "disk", code)


def _unpack_here(request: dict[str, Any], entrypoint: bytes, upload_fd: int, snapshot_fd: int) -> int:
    """0 done, 1 refused (the reason goes to the job's stderr), 2 no room."""
    work = os.open(root.WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        snapshot = unpack.unpack(request["upload"], upload_fd, work, entrypoint=entrypoint)
        view = memoryview(snapshot)
        while view:
            view = view[os.write(snapshot_fd, view) :]
    except unpack.UnpackError as error:
        os.write(2, f"sandrun: {error}\n".encode("utf-8", "backslashreplace"))
        return 2 if error.disk_full else 1
    finally:
        os.close(work)
    return 0
