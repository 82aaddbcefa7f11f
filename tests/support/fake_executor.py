"""An executor that runs nothing: it looks the program up and says what would have come of it."""

import asyncio
import hashlib
import os
import socket
from pathlib import Path

import msgspec

from sandrun_shared import framing
from sandrun_shared.jobs import Outcome, UploadKind, Verdict
from sandrun_shared.protocol import (
    Describe,
    Description,
    Environment,
    Execute,
    Finished,
    Interpreter,
    Message,
    Output,
    Refused,
    Request,
    Started,
)
from support.programs import ALL, Program

CONNECTION_LOST = "# the executor dies here\n"
HOSTILE_INDEX = "# the index of outputs is hostile\n"


class FakeExecutor:
    """Serves the executor's protocol on a real SOCK_SEQPACKET socket."""

    def __init__(self, path: Path, *, slots: int = 8) -> None:
        self.path = path
        self.slots = slots
        self.running = 0
        self.executed: list[Execute] = []
        self.hung_up = 0
        self.changed = asyncio.Event()
        self.refuse_next: list[Refused] = []
        self.interpreters = ("python3", "bash", "sh")
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    async def __aenter__(self) -> "FakeExecutor":
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Listen."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def stop(self) -> None:
        """Stop listening and hang up on everybody, as a killed executor does."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            self.path.unlink()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: "object") -> None:
        """Wait until condition() holds; it is looked at whenever something happened."""
        while not condition():  # type: ignore[operator]
            self.changed.clear()
            await self.changed.wait()

    def _accept(self) -> None:
        assert self._listener is not None
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._serve(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket) -> None:
        with sock:
            received = await self._receive(sock)
            if received is None:
                return
            request, fds = received
            try:
                if isinstance(request, Describe):
                    await self._send(sock, self._description())
                else:
                    await self._execute(sock, request, fds)
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                framing.close_all(fds)
                self.changed.set()

    def _description(self) -> Description:
        return Description(
            slots=self.slots,
            running=self.running,
            interpreters=tuple(Interpreter(name, "1.0") for name in self.interpreters),
            environments=(Environment("default", "What is installed", (), self.interpreters, True),),
            worker_id="fake",
        )

    async def _execute(self, sock: socket.socket, request: Execute, fds: list[int]) -> None:
        if self.refuse_next:
            await self._send(sock, self.refuse_next.pop())
            return
        self.executed.append(request)
        self.running += 1
        self.changed.set()
        try:
            program, code = self._program(request, fds)
            await self._send(sock, Started(0.001))
            if code == CONNECTION_LOST:
                return
            for sequence, (stream, data) in enumerate(program.output):
                await self._send(sock, Output(stream, sequence, data))
            if program.waits:
                if await self._receive(sock) is None:
                    self.hung_up += 1
                return
            await self._finish(sock, program, hostile=code == HOSTILE_INDEX)
        finally:
            self.running -= 1

    def _program(self, request: Execute, fds: list[int]) -> tuple[Program, str]:
        entrypoint = _read(fds[0]).split(b"\0")[0]
        upload = _read(fds[1])
        code = ""
        if request.upload is UploadKind.bundle:
            code = _bundle(upload)[entrypoint].decode()
        known = {program.code: program for program in ALL}
        return known.get(code, Program(code)), code

    async def _finish(self, sock: socket.socket, program: Program, *, hostile: bool) -> None:
        outcome = Outcome(
            Verdict.ok if program.exit_code == 0 else Verdict.nonzero_exit,
            program.exit_code,
            cpu_seconds=0.01,
            wall_seconds=0.02,
            setup_seconds=0.001,
            memory_peak_bytes=1 << 20,
            stdout_bytes=len(program.stream(1)),
            stderr_bytes=len(program.stream(2)),
        )
        files = {"../escape": b"x"} if hostile else program.files
        fds = []
        for data in (b"".join(files.values()), _index(files)) if files else ():
            fd = os.memfd_create("fake")
            os.write(fd, data)
            fds.append(fd)
        try:
            await self._send(sock, Finished(outcome), tuple(fds))
        finally:
            framing.close_all(fds)

    @staticmethod
    async def _send(sock: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
        framing.send(sock, message, fds)

    @staticmethod
    async def _receive(sock: socket.socket) -> "tuple[Request, list[int]] | None":
        loop = asyncio.get_running_loop()
        decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
        while True:
            try:
                return framing.receive(sock, decoder)
            except BlockingIOError:
                ready = loop.create_future()
                loop.add_reader(sock, ready.set_result, None)
                try:
                    await ready
                finally:
                    loop.remove_reader(sock)


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _bundle(data: bytes) -> dict[bytes, bytes]:
    files = {}
    while data:
        path, size, data = data.split(b"\0", 2)
        files[path], data = data[: int(size)], data[int(size) :]
    return files


def _index(files: dict[str, bytes]) -> bytes:
    return b"".join(
        b"%b\0%d\0%b\0" % (path.encode(), len(data), hashlib.sha256(data).hexdigest().encode())
        for path, data in files.items()
    )
