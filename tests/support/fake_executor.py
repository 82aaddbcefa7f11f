"""An executor that runs nothing: it looks the program up and sends its expected result."""

import asyncio
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from sandrun_shared import framing
from sandrun_shared.jobs import Installer, LeftOut, Outcome, UploadKind, Verdict
from sandrun_shared.keys import text_of
from sandrun_shared.protocol import (
    Describe,
    Description,
    Environment,
    Execute,
    Finished,
    Gpu,
    Identified,
    Identify,
    Installed,
    Interpreter,
    Message,
    Output,
    Refused,
    Request,
    Started,
)
from sandrun_shared.receipts import SignedStatement, sign, sign_nonce, statement_of
from sandrun_shared.sealing import OUTPUTS_NAME, LogSealer, public_key, seal_outputs
from support.outputs import index_of, signed_sha256
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
        self.required: list[dict[bytes, bytes]] = []  # files to install from, of each job that has some
        self.hung_up = 0
        self.changed = asyncio.Event()
        self.refuse_next: list[Refused] = []
        self.problem = ""  # why no sandbox can be made: every job is refused then
        self.tried: list[bool] = []  # of each Describe, whether a sandbox was to be tried
        self.retired = self.reclaimed = self.failures = 0
        self.silent = False  # connections are taken and nothing is said
        self.silent_on_jobs = False
        self.interpreters = ("python3", "bash", "sh")
        self.gpus: tuple[Gpu, ...] = ()
        self.left_out: tuple[LeftOut, ...] = ()  # of every job's outputs
        self.installers: tuple[Installer, ...] = ()
        self.key: SigningKey | None = SigningKey.generate()
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
        """Wait until condition() holds, testing it after every event."""
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
                if self.silent or (self.silent_on_jobs and isinstance(request, Execute)):
                    self.changed.set()
                    await self._receive(sock)
                elif isinstance(request, Describe):
                    self.tried.append(request.try_sandbox)
                    await self._send(sock, self._description())
                elif isinstance(request, Identify):
                    await self._send(sock, self._identified(request.nonce))
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
            worker_id=self._worker_id(),
            gpus=self.gpus,
            installers=self.installers,
            problem=self.problem,
            slots_retired=self.retired,
            slots_reclaimed=self.reclaimed,
            sandbox_failures=self.failures,
        )

    def _worker_id(self) -> str:
        return "" if self.key is None else text_of(bytes(self.key.verify_key))

    def _identified(self, nonce: str) -> Identified:
        return (
            Identified() if self.key is None else Identified(self._worker_id(), sign_nonce(self.key, nonce))
        )

    async def _execute(self, sock: socket.socket, request: Execute, fds: list[int]) -> None:
        if self.problem:
            await self._send(sock, Refused("unavailable", self.problem))
            return
        if self.refuse_next:
            await self._send(sock, self.refuse_next.pop())
            return
        self.executed.append(request)
        if request.installer is not None:
            self.required.append(_bundle(_read(fds[-1])))
        self.running += 1
        self.changed.set()
        try:
            if request.install_only:
                await self._send(sock, Installed(setup_seconds=2.0, setup_cpu_seconds=1.0))
                return
            program, code = self._program(request, fds)
            await self._send(sock, Started(0.001))
            if code == CONNECTION_LOST:
                return
            printed = _printed(request, program)
            for stream, data in printed:
                await self._send(sock, Output(stream, data))
            if program.waits:
                if await self._receive(sock) is None:
                    self.hung_up += 1
                return
            files = {"../escape": b"x"} if code == HOSTILE_INDEX else _files(request, program)
            await self._finish(
                sock, program, files, lambda outcome: self._receipt(request, fds, outcome, printed, files)
            )
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

    def _receipt(
        self,
        request: Execute,
        inputs: list[int],
        outcome: Outcome,
        printed: list[tuple[int, bytes]],
        files: dict[str, bytes],
    ) -> SignedStatement | None:
        if self.key is None:
            return None
        own = inputs if request.installer is None else inputs[:-1]
        order, upload, *stdin = [hashlib.sha256(_read(fd)).hexdigest() for fd in own]
        streams = [
            hashlib.sha256(b"".join(data for stream, data in printed if stream == number)).hexdigest()
            for number in (1, 2)
        ]
        statement = statement_of(
            outcome,
            request.limits,
            worker_id=self._worker_id(),
            manifest_sha256=request.manifest_sha256,
            upload_sha256=upload,
            encrypt_to=request.encrypt_to,
            order_sha256=order,
            stdin_sha256=stdin[0] if stdin else None,
            interpreter=request.interpreter,
            environment=request.environment,
            warm=request.warm,
            finished_unix_seconds=1_700_000_000,
            stdout_sha256=streams[0],
            stderr_sha256=streams[1],
            outputs_sha256=signed_sha256(files),
        )
        return sign(self.key, statement)

    async def _finish(
        self,
        sock: socket.socket,
        program: Program,
        files: dict[str, bytes],
        receipt: Callable[[Outcome], SignedStatement | None],
    ) -> None:
        outcome = Outcome(
            Verdict.ok if program.exit_code == 0 else Verdict.nonzero_exit,
            program.exit_code,
            cpu_seconds=0.01,
            wall_seconds=0.02,
            setup_seconds=0.001,
            memory_peak_bytes=1 << 20,
            stdout_bytes=len(program.stream(1)),
            stderr_bytes=len(program.stream(2)),
            outputs_truncated=bool(self.left_out),
            outputs_left_out=self.left_out,
        )
        fds = []
        for data in (b"".join(files.values()), index_of(files)) if files else ():
            fd = os.memfd_create("fake")
            os.write(fd, data)
            fds.append(fd)
        try:
            await self._send(sock, Finished(outcome, receipt=receipt(outcome)), tuple(fds))
        finally:
            framing.close_all(fds)

    @staticmethod
    async def _send(sock: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                framing.send(sock, message, fds)
            except BlockingIOError:
                ready = loop.create_future()
                loop.add_writer(sock, ready.set_result, None)
                try:
                    await ready
                finally:
                    loop.remove_writer(sock)
            else:
                return

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


def _printed(request: Execute, program: Program) -> list[tuple[int, bytes]]:
    if request.encrypt_to is None:
        return list(program.output)
    sealer = LogSealer(public_key(request.encrypt_to))
    return [(1, line) for line in sealer.lines(program.output, last=not program.waits)]


def _files(request: Execute, program: Program) -> dict[str, bytes]:
    if request.encrypt_to is None or not program.files:
        return program.files
    data = b"".join(program.files.values())
    sealed = seal_outputs(public_key(request.encrypt_to), index_of(program.files), [data], len(data))
    return {OUTPUTS_NAME: b"".join(sealed)}


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _bundle(data: bytes) -> dict[bytes, bytes]:
    files = {}
    while data:
        path, size, data = data.split(b"\0", 2)
        files[path], data = data[: int(size)], data[int(size) :]
    return files
