"""An interpreter started ahead of its job in the sandbox, and the helper that hands the job over.

The job's process becomes the interpreter, which waits (node.py). The helper waits in a second process: it
receives the job from the executor, unpacks, passes streams and order on, and exits before any code of the job
runs.
"""

from __future__ import annotations

import _socket
import os
import resource
import stat

from sandrun_sandbox import imports, job, messages, orders
from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.channel import Channel
from sandrun_sandbox.confine import Confinement
from sandrun_sandbox.layout import THREADS
from sandrun_sandbox.prestarted import node
from sandrun_sandbox.steps import StepError

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SOCKET = 3  # where a bootstrap looks


def main(config: dict[str, Any], name: str, confinement: Confinement, link: Channel) -> NoReturn:
    """Confine this process, fork the helper and become the interpreter."""
    job.reset_signals()
    try:
        confinement.enter()
        near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        interpreter = os.getpid()
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:  # reparented to PID 1, which reaps it; the interpreter has no child
                far.close()
                _help(interpreter, near, link)
            os._exit(0)
        os.waitpid(pid, 0)
        os.dup2(far.fileno(), _SOCKET)
        os.set_inheritable(_SOCKET, True)  # even if it already was descriptor 3
        linux.close_range(_SOCKET + 1)
        job.reset_ignored()
        command = node.COMMANDS[name]
        os.execve(command[0], command, config["variables"])  # noqa: S606
    except StepError as error:
        link.report(error.report)
    except OSError as error:
        link.report(messages.Failed("start", error.errno or 0))
    os._exit(1)


def _help(interpreter: int, socket: _socket.socket, link: Channel) -> NoReturn:
    """Hand one job over. Exits with a status that nobody reads, because the executor has the report."""
    try:
        if socket.recv(1) != b"r":
            raise StepError("start", 0)
        link.report(messages.Ready())
        message = link.receive(messages.JobMessage)
        if message is None:
            os._exit(0)
        request, fds = message
        order = job.take(request, fds)
        imports.end()
        for kind, value in job.rlimits(request):
            resource.prlimit(interpreter, kind, (value, value))
        socket.sendall(_encoded(request, order))
        if socket.recv(1) != b"k":
            raise StepError("start", 1)
        link.report(messages.Started())
    except (StepError, messages.MessageError) as error:
        link.report(error.report)
    except (OSError, ValueError, MemoryError) as error:
        link.report(messages.Failed("take", getattr(error, "errno", 0) or 0))
    finally:
        # Closed before the socket, for whose end of file the bootstrap waits.
        link.close()
        os._exit(0)


def _encoded(request: messages.JobMessage, order: orders.Order) -> bytes:
    """Encode the job for the bootstrap."""
    # An empty input is the host's null device, which Landlock does not let the job open; it opens its own.
    given = "n" if stat.S_ISCHR(os.fstat(0).st_mode) else "y"
    threads = dict.fromkeys(THREADS, str(request.threads))
    variables = [
        f"{key}={value}" for key, value in {**threads, **request.language_variables, **order.env}.items()
    ]
    fields = [str(os.getpid()), given, order.entrypoint]
    for items in (order.args, variables):
        fields += [str(len(items)), *items]
    data = b"".join([os.fsencode(field) + b"\0" for field in fields])
    return b"%012d" % len(data) + data
