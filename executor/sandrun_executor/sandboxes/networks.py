"""Network namespaces of sandboxes: loopback only; one that no job has used is given to the next job."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sandrun_sandbox import linux_unsafe as linux

# Every counter of what was sent, received or refused in a namespace (proc_pid_net(5)). Sockets die with their
# processes, and one that lingers has sent something. A missing file means that the kernel lacks the protocol.
_COUNTERS = ("dev", "snmp", "snmp6", "netstat")
_ROOM = 64 << 10
KEEP_SECONDS = 0.05  # how long an unused network waits for the next job of a burst
# These describe all namespaces: sockets and memory of TCP, packets by processor, sizes of caches.
_OF_THE_MACHINE = ("sockstat", "sockstat6", "softnet_stat", "protocols", "rt_acct", "stat")


class Network:
    """One namespace (network_namespaces(7)) with `lo` up; it stays while this object holds it."""

    def __init__(self) -> None:
        """Make the namespace and bring `lo` up. Raises OSError."""
        self._counters: list[int] = []
        with _thread_namespace():
            linux.unshare(linux.CLONE_NEWNET)
            linux.loopback_up()
            _hide_the_machine()
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                for name in _COUNTERS:
                    with suppress(FileNotFoundError):
                        fd = os.open(f"/proc/thread-self/net/{name}", os.O_RDONLY | os.O_CLOEXEC)
                        self._counters.append(fd)
                self._new = self._read()
            except BaseException:
                self.close()
                raise

    def _read(self) -> bytes:
        return b"".join([os.pread(fd, _ROOM, 0) for fd in self._counters])

    def is_as_new(self) -> bool:
        """Whether no counter shows a use: no packet, no failed attempt."""
        return bool(self._counters) and self._read() == self._new

    def listen(self, port: int) -> socket.socket:
        """Listen on its loopback; a connection counts as a use of the namespace. Raises OSError."""
        self._new = b""
        with _thread_namespace():
            linux.setns(self.fd, linux.CLONE_NEWNET)
            return socket.create_server(("127.0.0.1", port), backlog=128)

    def close(self) -> None:
        """Close the namespace, which ends with its last process."""
        for fd in (self.fd, *self._counters):
            os.close(fd)
        self._counters.clear()


class Networks:
    """A pool in which namespaces that no job has used wait briefly for the next job.

    A new one costs more than a millisecond, most of it in kernel threads when it is destroyed.
    """

    def __init__(self) -> None:
        self._idle: list[Network] = []
        self._released_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def acquire(self) -> Network:
        """Acquire a namespace that no job has used. Raises OSError."""
        return self._idle.pop() if self._idle else Network()

    def release(self, network: Network) -> None:
        """Keep it for a moment if it is unused; else close it: counters and TIME_WAIT tell of its job."""
        if not network.is_as_new():
            network.close()
            return
        loop = asyncio.get_running_loop()
        self._idle.append(network)
        self._released_at = loop.time()
        if self._timer is None:
            self._timer = loop.call_at(self._released_at + KEEP_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        close_at = self._released_at + KEEP_SECONDS
        if loop.time() < close_at:
            self._timer = loop.call_at(close_at, self._close_idle)
        else:
            self.close()

    def close(self) -> None:
        """Close the namespaces that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._idle:
            self._idle.pop().close()


def _hide_the_machine() -> None:
    """Make the files by which this thread's namespace describes the machine unreadable. Raises OSError.

    Each namespace has separate files, and a mode belongs to the file. Therefore it holds on every path to the
    file, such as /proc/PID/task/TID/net, in every /proc (proc_notify_change in fs/proc/generic.c).
    """
    for name in _OF_THE_MACHINE:
        with suppress(FileNotFoundError):
            os.chmod(f"/proc/thread-self/net/{name}", 0o400)


@contextmanager
def _thread_namespace() -> Iterator[None]:
    """Return to this thread's network namespace at the end."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        linux.setns(home, linux.CLONE_NEWNET)
        os.close(home)
