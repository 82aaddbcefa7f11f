"""The api's side of the executor's socket: one connection per request.

Hanging up cancels the job, so leaving the `execute` context cancels it.
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from sandrun_shared import framing
from sandrun_shared.protocol import Describe, Description, Event, Execute, Identified, Identify, Message

DESCRIBE_SECONDS = 5.0
_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


class ExecutorLost(Exception):
    """The executor hung up, or sent something that is not a message, before its last message."""


class ExecutorAway(ExecutorLost):
    """No executor could be connected to, and nothing was sent."""


class Connection:
    """Connection of one request."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send one message with copies of the descriptors. Raises ExecutorLost."""
        while True:
            try:
                framing.send(self._sock, message, fds)
            except BlockingIOError:
                await self._ready(write=True)
            except (OSError, framing.FrameError) as error:
                raise ExecutorLost(type(error).__name__) from None
            else:
                return

    async def receive(self) -> tuple[Event, list[int]]:
        """Receive a message; the caller owns its descriptors. Raises ExecutorLost."""
        while True:
            try:
                received = framing.receive(self._sock, _decoder)
            except BlockingIOError:
                await self._ready(write=False)
            except (OSError, framing.FrameError) as error:
                raise ExecutorLost(type(error).__name__) from None
            else:
                if received is None:
                    raise ExecutorLost("the executor hung up")
                return received

    async def _ready(self, *, write: bool) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        add, remove = (
            (self._loop.add_writer, self._loop.remove_writer)
            if write
            else (self._loop.add_reader, self._loop.remove_reader)
        )
        fd = self._sock.fileno()  # asyncio would format a socket object, which queries its addresses
        add(fd, _resolve, ready)
        try:
            await ready
        finally:
            remove(fd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class ExecutorClient:
    """Talks to the executor behind one Unix socket."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._pid = 0
        self.restarts = 0

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Connection]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.connect(self._path)  # a Unix socket connects at once or not at all (unix(7))
            except OSError as error:
                raise ExecutorAway(type(error).__name__) from None
            self._recognise(sock)
            yield Connection(sock)

    def _recognise(self, sock: socket.socket) -> None:
        """Count the executor's restarts, by the pid of the listening process (unix(7), SO_PEERCRED)."""
        size = struct.calcsize("iII")
        pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        self.restarts += self._pid not in (0, pid)
        self._pid = pid

    async def describe(self, *, try_sandbox: bool = False) -> Description:
        """Ask what the executor can do and, with try_sandbox, whether it can make a sandbox.

        Raises ExecutorLost, also when it does not answer in time.
        """
        message = await self._ask(Describe(try_sandbox=try_sandbox))
        if not isinstance(message, Description):
            raise ExecutorLost("not a description")
        return message

    async def identify(self, nonce: str) -> Identified:
        """Ask for the executor's id and its signature of the nonce. Raises ExecutorLost, as describe does."""
        message = await self._ask(Identify(nonce))
        if not isinstance(message, Identified):
            raise ExecutorLost("not a proof of identity")
        return message

    async def _ask(self, question: Message) -> Event:
        try:
            async with asyncio.timeout(DESCRIBE_SECONDS), self._connect() as connection:
                await connection.send(question)
                message, fds = await connection.receive()
        except TimeoutError:
            raise ExecutorLost("the executor does not answer") from None
        framing.close_all(fds)
        return message

    @asynccontextmanager
    async def execute(self, request: Execute, fds: tuple[int, ...]) -> AsyncIterator[Connection]:
        """Start one job; its events are received from the connection. Leaving the context cancels it.

        Raises ExecutorAway if nothing was sent, ExecutorLost later on.
        """
        async with self._connect() as connection:
            await connection.send(request, fds)
            yield connection
