"""The executor's socket: one request per connection; a hang-up cancels it."""

import asyncio
import logging
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from sandrun_executor.access import Access, AccessDenied
from sandrun_shared.framing import FrameError, close_all, receive, send
from sandrun_shared.protocol import Describe, Event, Execute, Identify, Refused, Request

REQUEST_SECONDS = 10.0
BACKLOG = 128
MAX_WAITING_EVENTS = 64
PAUSE_SECONDS = 0.2  # pause after a failed accept, unless a connection ends before
_log = logging.getLogger("sandrun.executor")
_decoder = msgspec.msgpack.Decoder(Request)


class Handler(Protocol):
    """The executor's interface to the server."""

    async def execute(self, request: Execute, fds: list[int], peer: "Peer", requested_at: float) -> None: ...

    async def describe(self, request: Describe, peer: "Peer") -> None: ...

    async def identify(self, request: Identify, peer: "Peer") -> None: ...


def nothing() -> None:
    """Do nothing: the default callback of a connection."""


def _copies(fds: tuple[int, ...]) -> tuple[int, ...]:
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))
    except OSError:
        close_all(copies)
        raise
    return tuple(copies)


class Peer:
    """One accepted connection: sends events, and calls back when the other side hangs up."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._waiting: deque[tuple[Event, tuple[int, ...]]] = deque()
        self._writing = False
        self.gone = False
        self.on_gone: Callable[[], None] = nothing
        self.on_room: Callable[[], None] = nothing

    def send(self, event: Event, fds: tuple[int, ...] = ()) -> bool:
        """Send or queue one event; False asks the sender to pause until on_room. Duplicates descriptors."""
        if self.gone:
            return True  # nobody reads; the job is being cancelled and may drain
        if not self._waiting:
            try:
                send(self._socket, event, fds)
                return True
            except BlockingIOError:
                pass
            except OSError:
                self._lost()
                return True
        self._waiting.append((event, _copies(fds)))
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket.fileno(), self._writable)
        return len(self._waiting) < MAX_WAITING_EVENTS // 8

    def _writable(self) -> None:
        try:
            while self._waiting:
                event, fds = self._waiting[0]
                send(self._socket, event, fds)
                self._waiting.popleft()
                close_all(list(fds))
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        self._stop_writing()
        self.on_room()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    def watch(self) -> None:
        """From here on treat anything that arrives as a hang-up."""
        self._loop.add_reader(self._socket.fileno(), self._lost)

    def _lost(self) -> None:
        if self.gone:
            return
        self.gone = True
        self._loop.remove_reader(self._socket.fileno())
        self._stop_writing()
        self._drop_waiting()
        self.on_gone()
        self.on_room()

    def _drop_waiting(self) -> None:
        while self._waiting:
            close_all(list(self._waiting.popleft()[1]))

    async def flushed(self, seconds: float) -> None:
        """Wait until everything is sent or the peer has hung up. Raises TimeoutError."""
        if not self._waiting:
            return
        done = asyncio.Event()
        self.on_room = done.set
        async with asyncio.timeout(seconds):
            await done.wait()

    async def request(self) -> tuple[Request, list[int]] | None:
        """Receive the one request; None if the peer hung up first. Raises FrameError, TimeoutError."""
        try:
            return receive(self._socket, _decoder)
        except BlockingIOError:
            pass
        readable = asyncio.Event()
        self._loop.add_reader(self._socket.fileno(), readable.set)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await readable.wait()
        finally:
            self._loop.remove_reader(self._socket.fileno())
        return receive(self._socket, _decoder)

    def close(self) -> None:
        """Hang up."""
        self._loop.remove_reader(self._socket.fileno())
        self._stop_writing()
        self._drop_waiting()
        self._socket.close()


class Server:
    """Accepts connections of allowed peers and runs each in a separate task."""

    def __init__(
        self, listener: socket.socket, access: Access, handler: Handler, max_connections: int
    ) -> None:
        self._listener = listener
        self._access = access
        self._handler = handler
        self._max_connections = max_connections
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._failing = False

    def start(self) -> None:
        """Begin to accept connections."""
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # EMFILE and the like: the connection stays queued and would wake us at once
            if not self._failing:
                _log.error("cannot accept connections, retrying: %s", error.strerror)
            self._failing = True
            self._stop_accepting()
            self._pause = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._accept_again)
            return
        self._failing = False
        sock.setblocking(False)
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        try:
            self._access.check(uid)
        except AccessDenied as error:
            _log.warning("connection refused: %s", error)
            sock.close()
            return
        peer = Peer(sock)
        if len(self._tasks) >= self._max_connections:
            peer.send(Refused("full", "too many connections"))
            peer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(peer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._pause is not None:
            self._accept_again()  # a descriptor became free

    def _accept_again(self) -> None:
        self._stop_accepting()
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _stop_accepting(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    async def _serve(self, peer: Peer) -> None:
        fds: list[int] = []
        try:
            received = await peer.request()
            requested_at = time.monotonic()
            if received is None:
                return
            request, fds = received
            match request:
                case Execute():
                    await self._execute(request, fds, peer, requested_at)
                case Describe():
                    await self._handler.describe(request, peer)
                case Identify():
                    await self._handler.identify(request, peer)
        except FrameError:
            peer.send(Refused("invalid", "not a message of this protocol"))
        except TimeoutError:
            pass
        except Exception:
            _log.exception("a connection ended by an internal error")
        finally:
            close_all(fds)
            peer.close()

    async def _execute(self, request: Execute, fds: list[int], peer: Peer, requested_at: float) -> None:
        wanted = 2 + request.has_stdin + (request.installer is not None)
        if len(fds) != wanted:
            peer.send(Refused("invalid", f"{len(fds)} descriptors instead of {wanted}"))
            return
        peer.watch()
        await self._handler.execute(request, fds, peer, requested_at)
        await peer.flushed(REQUEST_SECONDS)

    async def close(self) -> None:
        """Stop accepting and wait for the running tasks."""
        self._stop_accepting()
        self._listener.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=REQUEST_SECONDS)
