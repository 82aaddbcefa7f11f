"""Listening sockets that bound the open connections, in total and per address.

Counted where they are accepted, so that a connection counts while it does nothing but a TLS handshake.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from sandrun_api.edge.clients import key_of
from sandrun_api.edge.raw_answers import refusal
from sandrun_api.errors import ApiError
from sandrun_shared.notify import notify, passed_fds
from sandrun_shared.settings import Api

BACKLOG = 2048  # cut to net.core.somaxconn (listen(2))
REFUSED_AT_ONCE = 64  # before other work gets its turn
LINGERING = 256  # refused connections that may still read why
LINGER_SECONDS = 1.0
LONGEST_LINGER_SECONDS = 5.0  # of one that is still sending, which it does before it reads
DROPPED_BYTES = 64 << 10  # of what it sends, at a time
KEEPALIVE_SECONDS = 60  # until a silent peer is asked whether it is there (tcp(7))


@dataclass
class ConnectionLimiter:
    """Open connections of all listeners, in total and per address; an address is kept only as a key."""

    limits: Api
    exempt: Callable[[str], bool] = lambda _: False  # a proxy's connections are those of many clients
    tls: bool = False
    refused: Callable[[str, str], None] = lambda *_: None  # told the key and the cause
    open: int = 0
    lingering: set[socket.socket] = field(default_factory=set)
    by_address: Counter[str] = field(default_factory=Counter)

    def refusal(self, host: str) -> ApiError | None:
        """Why one more connection of the address is not admitted."""
        limits = self.limits
        if self.open >= limits.connections:
            reason = "The server has as many connections as it can serve."
            return ApiError(503, reason, retry_after=5, cause="connections")
        most = limits.connections_per_address
        if most and self.by_address[key_of(host)] >= most and not self.exempt(host):
            reason = f"Your address has {most} connections open already."
            return ApiError(429, reason, retry_after=5, cause="connections_of_address")
        return None

    def acquire(self, host: str) -> Callable[[], None]:
        """Count a connection; calling the result releases it."""
        key = key_of(host)
        self.open += 1
        self.by_address[key] += 1

        def release() -> None:
            self.open -= 1
            self.by_address[key] -= 1
            if not self.by_address[key]:
                del self.by_address[key]

        return release

    def forget(self, connection: socket.socket) -> None:
        """Close a connection that was refused."""
        if connection in self.lingering:
            self.lingering.discard(connection)
            asyncio.get_running_loop().remove_reader(connection)
        connection.close()

    def linger(self, connection: socket.socket) -> None:
        """Drop what a refused connection sends, until it has read why, or for a while.

        Closed at once, what the client has sent would make the kernel reset the connection (RFC 1122,
        4.2.2.13), and the client might not see the answer.
        """
        loop = asyncio.get_running_loop()
        last = loop.time() + LONGEST_LINGER_SECONDS
        sends = False

        def drop() -> None:
            nonlocal sends
            try:
                sends = bool(connection.recv(DROPPED_BYTES))
            except BlockingIOError:
                return
            except OSError:
                sends = False
            if not sends:
                self.forget(connection)

        def look() -> None:
            nonlocal sends
            if connection not in self.lingering:
                return
            if not sends or loop.time() >= last:
                self.forget(connection)
                return
            sends = False
            loop.call_later(LINGER_SECONDS, look)

        self.lingering.add(connection)
        loop.add_reader(connection, drop)
        loop.call_later(LINGER_SECONDS, look)

    def close(self) -> None:
        """Close all connections that were refused."""
        for connection in list(self.lingering):
            self.forget(connection)


class _Connection(socket.socket):
    """An accepted connection that is counted until it is closed."""

    release: Callable[[], None] | None = None

    def close(self) -> None:
        """Close and release."""
        super().close()
        release, self.release = self.release, None
        if release is not None:
            release()


class Listener(socket.socket):
    """A listening TCP socket of the event loop."""

    limiter: ConnectionLimiter

    def accept(self) -> tuple[socket.socket, object]:
        """The next connection that is admitted. Raises BlockingIOError when none waits."""
        for _ in range(REFUSED_AT_ONCE):
            accepted, address = super().accept()
            connection = _Connection(fileno=accepted.detach())
            connection.setblocking(False)
            host = str(address[0])
            error = self.limiter.refusal(host)
            if error is None:
                connection.release = self.limiter.acquire(host)
                return connection, address
            self.limiter.refused(key_of(host), error.cause)
            self._refuse(connection, error)
        raise BlockingIOError

    def _refuse(self, connection: socket.socket, error: ApiError) -> None:
        limiter = self.limiter
        if limiter.tls or len(limiter.lingering) >= LINGERING:
            connection.close()
            return
        try:
            connection.send(refusal(error))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
            return
        limiter.linger(connection)


def _kept() -> dict[object, Listener]:
    """The listening sockets that the service manager kept since the last start, by address."""
    kept = [Listener(fileno=fd) for fd in passed_fds()]
    return {(listener.family, listener.getsockname()): listener for listener in kept}


def listen(host: str, port: int, limiter: ConnectionLimiter) -> list[Listener]:
    """A listener for every address of the host. Raises OSError.

    The service manager keeps them too, so that connections wait while the server is started again
    (FileDescriptorStoreMax=, systemd.service(5)).
    """
    kept = _kept()
    listeners: list[Listener] = []
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for unwanted in kept.keys() - {(family, address) for family, _, _, _, address in addresses}:
            with kept.pop(unwanted) as listener, suppress(OSError):
                # The service manager's copy still listens, and could be in the way of a wider address.
                listener.shutdown(socket.SHUT_RDWR)
        for family, kind, protocol, _, address in addresses:
            taken = kept.pop((family, address), None)
            listener = taken or Listener(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Inherited by the connections. The kernel ends one that takes nothing, or whose peer is gone.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
            milliseconds = int(2000 * limiter.limits.send_seconds)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            if taken is None:
                listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            listener.limiter = limiter
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    finally:
        for listener in kept.values():
            listener.close()
    notify("FDSTOREREMOVE=1\nFDNAME=http")
    notify("FDSTORE=1\nFDNAME=http", [listener.fileno() for listener in listeners])
    return listeners
