"""The package proxy as a process: one for each installation, unprivileged, and ending with it.

Standard input is a SOCK_SEQPACKET connection of the executor. It receives one `Task` with the socket that the
executor made inside the sandbox's network namespace, answers `Ready`, and ends when the executor hangs up.
Each installation has a separate proxy, because it parses what strangers write: an exploit does not reach
another installation. Only the proxy reads the registries' passwords, after it has dropped every privilege.
"""

import asyncio
import ipaddress
import netrc
import os
import resource
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import msgspec

from sandrun_helpers.messages import Ready, Task
from sandrun_helpers.relay import MAX_HEAD, Relay, Rules
from sandrun_sandbox import linux_unsafe as linux
from sandrun_shared import framing

_BACKLOG = 128
_CERTIFICATES_BYTES = 4 << 20


class FileError(Exception):
    """A file that came with the task cannot be used; the text names its setting, not its contents."""


def lower(task: Task) -> None:
    """Drop every privilege for good. Raises OSError."""
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
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # the change of uid cleared it
    linux.clear_capabilities()
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.SeccompProgram(task.seccomp).install()


def rules_of(task: Task, files: list[int]) -> Rules:
    """Build the rules from the task and its files. Raises FileError."""
    networks = tuple(ipaddress.ip_network(text) for text in task.networks)
    rules = Rules(frozenset(task.hosts), task.max_bytes, networks)
    if files:
        rules.tls = _certificates(files[0])
        found = _credentials(files[1] if len(files) > 1 else _of_the_unit(task.credential))
        rules.credentials = {host: found[host] for host in task.hosts if host in found}
    return rules


def _certificates(fd: int) -> ssl.SSLContext:
    try:
        with open(fd, encoding="ascii", errors="replace") as file:  # what is not ASCII is a comment
            return ssl.create_default_context(cadata=file.read(_CERTIFICATES_BYTES).replace("\ufffd", "?"))
    except (OSError, ValueError) as error:
        raise FileError(f"package_ca: {type(error).__name__}") from None


def _credentials(file: Any) -> dict[str, tuple[str, str]]:
    """Read user and password by host; file is a path or, as for open(), a descriptor."""
    try:
        entries = netrc.netrc(file).hosts
    except netrc.NetrcParseError as error:
        raise FileError(f"package_netrc: line {error.lineno} is not as netrc(5) has it") from None
    except (OSError, ValueError) as error:
        raise FileError(f"package_netrc: {type(error).__name__}") from None
    return {host: (login, password or "") for host, (login, _, password) in entries.items()}


def _of_the_unit(credential: str) -> Path:
    """Find the file of a systemd credential (systemd.exec(5), LoadCredential=). Raises FileError."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder or "/" in credential:
        raise FileError(f"package_netrc: the proxy's unit has no LoadCredential={credential}:FILE")
    return Path(folder, credential)


async def serve(rules: Rules, listener: socket.socket, control: socket.socket) -> None:
    """Serve until the executor hangs up. Raises OSError."""
    relay = Relay(rules)
    server = await asyncio.start_server(relay.serve, sock=listener, limit=MAX_HEAD, backlog=_BACKLOG)
    hung_up = asyncio.Event()
    asyncio.get_running_loop().add_reader(control.fileno(), hung_up.set)
    async with server:
        framing.send(control, Ready(tuple(rules.credentials)))
        await hung_up.wait()
    os._exit(0)  # no connection matters any more


def main() -> int:
    """Receive the task, drop privileges, serve; returns the exit status."""
    control = socket.socket(fileno=os.dup(0))
    received = framing.receive(control, msgspec.msgpack.Decoder(Task))
    if received is None or not received[1]:
        return 1
    task, (listener_fd, *files) = received
    lower(task)  # before any file is read
    control.setblocking(False)
    try:
        rules = rules_of(task, files)
    except FileError as error:
        framing.send(control, Ready(problem=str(error)))
        return 1
    asyncio.run(serve(rules, socket.socket(fileno=listener_fd), control))
    return 0


if __name__ == "__main__":
    sys.exit(main())
