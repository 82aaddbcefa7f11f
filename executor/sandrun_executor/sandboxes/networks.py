"""Network namespaces of sandboxes: loopback and nothing else, used again only while nobody used them."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sandrun_sandbox import linux_unsafe as linux

# Every counter that a namespace keeps of what was sent, received or refused in it (proc_pid_net(5)); sockets
# die with their processes, and those that linger have sent something. A file that is not there belongs to a
# protocol that is not there.
_COUNTERS = ("dev", "snmp", "snmp6", "netstat")
_ROOM = 64 << 10
KEEP_SECONDS = 0.05  # for which an unused network waits for the next job of a burst
# What these say is about every namespace: sockets and memory of TCP, packets by processor, sizes of caches.
_OF_THE_MACHINE = ("sockstat", "sockstat6", "softnet_stat", "protocols", "rt_acct", "stat")


class Network:
    """One namespace (network_namespaces(7)) with `lo` up; it stays while this object holds it."""

    def __init__(self) -> None:
        """Make it. Raises OSError."""
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
        """Whether nothing tells that it was used: no packet, no attempt that failed."""
        return bool(self._counters) and self._read() == self._new

    def listen(self, port: int) -> socket.socket:
        """A socket that listens on its loopback; whoever connects, it counts as used. Raises OSError."""
        self._new = b""
        with _thread_namespace():
            linux.setns(self.fd, linux.CLONE_NEWNET)
            return socket.create_server(("127.0.0.1", port), backlog=128)

    def close(self) -> None:
        """Let it go."""
        for fd in (self.fd, *self._counters):
            os.close(fd)
        self._counters.clear()


class Networks:
    """A pool in which a namespace that no job has used waits for the next one of a burst.

    A new one costs a millisecond and more, most of it in the kernel's threads when it is taken down.
    """

    def __init__(self) -> None:
        self._idle: list[Network] = []
        self._released_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def acquire(self) -> Network:
        """A namespace that nobody has used. Raises OSError."""
        return self._idle.pop() if self._idle else Network()

    def release(self, network: Network) -> None:
        """Keep it for a moment if it is as new: counters and sockets in TIME_WAIT tell of the job before."""
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
        """Close those that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._idle:
            self._idle.pop().close()


def _hide_the_machine() -> None:
    """Take from others what this thread's namespace says of the machine. Raises OSError.

    A mode belongs to the file, which each namespace has for itself: it holds on every path that leads there,
    /proc/PID/task/TID/net too, in every /proc (proc_notify_change in Linux' fs/proc/generic.c).
    """
    for name in _OF_THE_MACHINE:
        with suppress(FileNotFoundError):
            os.chmod(f"/proc/thread-self/net/{name}", 0o400)


@contextmanager
def _thread_namespace() -> Iterator[None]:
    """Come back to this thread's network namespace at the end."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        linux.setns(home, linux.CLONE_NEWNET)
        os.close(home)
