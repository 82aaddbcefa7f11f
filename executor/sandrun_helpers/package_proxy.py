"""The package proxy as a process: one for each installation, unprivileged, and gone with it.

Standard input is a SOCK_SEQPACKET connection of the executor: one `Task` comes with the socket that it made
inside the sandbox's network namespace; when the executor hangs up, the process ends. One for each: it reads
what strangers write, and what one of them makes of it does not reach another's.
"""

import asyncio
import ipaddress
import os
import resource
import signal
import socket
import ssl
import sys

import msgspec

from sandrun_helpers.messages import Task
from sandrun_helpers.relay import MAX_HEAD, Relay, Rules
from sandrun_sandbox import linux_unsafe as linux
from sandrun_shared import framing

_BACKLOG = 128


def lower(task: Task) -> None:
    """Give up every privilege, for good. Raises OSError."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(kind, (value, value))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(task.uid, task.uid, task.uid)
        linux.drop_bounding_set()
        os.setresuid(task.uid, task.uid, task.uid)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # the change of uid had cleared it
    linux.clear_capabilities()
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.SeccompProgram(task.seccomp).install()


def rules_of(task: Task) -> Rules:
    """What the task says, with the certificates read. Raises OSError."""
    networks = tuple(ipaddress.ip_network(text) for text in task.networks)
    tls = ssl.create_default_context(cafile=task.ca) if task.credentials else None
    return Rules(frozenset(task.hosts), task.max_bytes, networks, task.credentials, tls)


async def serve(rules: Rules, listener: socket.socket, control: socket.socket) -> None:
    """Serve until the executor hangs up. Raises OSError."""
    relay = Relay(rules)
    server = await asyncio.start_server(relay.serve, sock=listener, limit=MAX_HEAD, backlog=_BACKLOG)
    hung_up = asyncio.Event()
    asyncio.get_running_loop().add_reader(control.fileno(), hung_up.set)
    async with server:
        control.send(b"ready")
        await hung_up.wait()
    os._exit(0)  # connections are for nobody now


def main() -> int:
    """Take the task, become nobody, serve; the exit status."""
    control = socket.socket(fileno=os.dup(0))
    received = framing.receive(control, msgspec.msgpack.Decoder(Task))
    if received is None or len(received[1]) != 1:
        return 1
    task, (listener_fd,) = received
    rules = rules_of(task)  # before: the file may be root's alone
    lower(task)
    control.setblocking(False)
    asyncio.run(serve(rules, socket.socket(fileno=listener_fd), control))
    return 0


if __name__ == "__main__":
    sys.exit(main())
