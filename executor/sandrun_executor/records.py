"""What the executor keeps of one execution to sign it, and what it seals before anything leaves.

The bytes of clients are hashed and encrypted here as they are; nothing looks into them.
"""

import asyncio
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import msgspec
from nacl.public import PublicKey

from sandrun_executor.handover import Sink
from sandrun_executor.worker_key import WorkerKey
from sandrun_shared import framing
from sandrun_shared.jobs import Outcome
from sandrun_shared.protocol import Execute, Finished, Output
from sandrun_shared.receipts import SignedStatement, statement_of
from sandrun_shared.sealing import MAX_INDEX, OUTPUTS_NAME, LogSealer, public_key, seal_outputs

INLINE_BYTES = 64 << 10  # about 50 µs of hashing; more goes to a thread
MAX_INPUT_BYTES = 4 << 30
PIECE = 1 << 20
FROZEN = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


T = TypeVar("T")


class RecordError(Exception):
    """A request that cannot be signed or sealed for; the text says why."""


class Record:
    """One execution; does nothing at all without a worker key and without a key to seal to."""

    def __init__(self, worker_key: WorkerKey | None, request: Execute, fds: list[int]) -> None:
        """fds are the request's memfds, frozen here if there will be a signature. Raises RecordError."""
        self._worker_key = worker_key
        self._request = request
        self._inputs = list(fds)
        self._hashing: asyncio.Task[list[str]] | None = None
        self._abandoned = threading.Event()
        self._streams = {1: hashlib.sha256(), 2: hashlib.sha256()}
        self._own: list[int] = []
        self.log_sealer: LogSealer | None = None
        try:
            self._seal_to = None if request.encrypt_to is None else public_key(request.encrypt_to)
        except ValueError as error:
            raise RecordError(f"encrypt_to is {error}") from None
        if self._seal_to is not None:
            self.log_sealer = LogSealer(self._seal_to)
        if worker_key is not None:
            for fd in fds:
                freeze(fd)

    def begin(self) -> None:
        """Hash what was asked for, while the sandbox is busy with it; never before the job has it."""
        if self._worker_key is not None:
            work = _aside(self._inputs, _digests, self._abandoned)
            self._hashing = asyncio.get_running_loop().create_task(work)

    def saw(self, output: Output) -> None:
        """Some output, as it leaves."""
        if self._worker_key is not None:
            self._streams[output.stream].update(output.data)

    async def finished(
        self, outcome: Outcome, logs: tuple[Output, ...], data_fd: int, index_fd: int
    ) -> tuple[Finished, tuple[int, int]]:
        """The last message and its descriptors; those made here are closed by close().

        data_fd and index_fd must be frozen: they are read more than once.
        """
        if self._worker_key is None and self._seal_to is None:
            return Finished(outcome, logs), (data_fd, index_fd)
        for output in logs:
            self.saw(output)
        kept = self._within_bounds(data_fd, index_fd)
        if kept and self._seal_to is not None:
            try:
                made = await _aside([data_fd, index_fd], partial(_sealed, self._seal_to), self._abandoned)
            except (OSError, MemoryError, EOFError):
                kept = False
            else:
                self._own += made
                data_fd, index_fd = made
        if not kept:
            outcome = msgspec.structs.replace(outcome, outputs_truncated=True)
            data_fd, index_fd = self._memfd("empty"), self._memfd("empty")
        return Finished(outcome, logs, await self._signed(outcome, index_fd)), (data_fd, index_fd)

    async def tell(self, sink: Sink, outcome: Outcome, log: bytes) -> None:
        """End a job that never ran: its outcome, and on stderr what was said while it was set up."""
        self.begin()
        data_fd, index_fd = self._memfd("empty"), self._memfd("empty")
        logs: tuple[Output, ...] = (Output(2, 0, log),) if log else ()
        if self.log_sealer is not None:
            lines = self.log_sealer.lines([(2, log)], last=True)
            logs = tuple(Output(1, number, line) for number, line in enumerate(lines))
        sink.send(*await self.finished(outcome, logs, data_fd, index_fd))

    def close(self) -> None:
        """Forget everything."""
        self._abandoned.set()
        if self._hashing is not None:
            self._hashing.cancel()
        while self._own:
            os.close(self._own.pop())

    def _within_bounds(self, data_fd: int, index_fd: int) -> bool:
        # Both were written by a process with the job's uid: their sizes are its word until looked at.
        return _size(index_fd) <= MAX_INDEX and _size(data_fd) <= self._request.limits.disk_bytes

    async def _signed(self, outcome: Outcome, index_fd: int) -> SignedStatement | None:
        if self._worker_key is None or self._hashing is None:
            return None
        order, upload, *stdin = await self._hashing
        (outputs,) = await _aside([index_fd], _digests, self._abandoned)
        request = self._request
        return self._worker_key.sign(
            statement_of(
                outcome,
                request.limits,
                worker_id=self._worker_key.worker_id,
                manifest_sha256=request.manifest_sha256,
                upload_sha256=upload,
                encrypt_to=request.encrypt_to,
                order_sha256=order,
                stdin_sha256=stdin[0] if stdin else None,
                interpreter=request.interpreter,
                environment=request.environment,
                warm=request.warm,
                finished_unix_seconds=int(time.time()),
                stdout_sha256=self._streams[1].hexdigest(),
                stderr_sha256=self._streams[2].hexdigest(),
                outputs_sha256=outputs,
            )
        )

    def _memfd(self, name: str) -> int:
        self._own.append(_memfd(name))
        return self._own[-1]


async def _aside(fds: list[int], work: Callable[[list[int], threading.Event], T], stop: threading.Event) -> T:
    """The result of work on these files: at once for little, in a thread for much.

    A thread gets copies of its own: it may still read when everybody else has closed the files.
    """
    if sum(map(_size, fds)) <= INLINE_BYTES:
        return work(fds, stop)
    copies = [os.dup(fd) for fd in fds]

    def in_thread() -> T:
        try:
            return work(copies, stop)
        finally:
            while copies:
                os.close(copies.pop())

    # Shielded: a thread that was never started would not close its copies.
    result = asyncio.get_running_loop().run_in_executor(None, in_thread)
    result.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    return await asyncio.shield(result)


def _digests(fds: list[int], stop: threading.Event) -> list[str]:
    """SHA-256 in hex of each file. Raises InterruptedError once nobody wants it any more."""
    digests = []
    for fd in fds:
        digest = hashlib.sha256()
        for piece in _pieces(fd, stop):
            digest.update(piece)
        digests.append(digest.hexdigest())
    return digests


def _sealed(key: PublicKey, fds: list[int], stop: threading.Event) -> list[int]:
    """New memfds: one sealed file in place of the outputs, and its index; empty ones if there are none."""
    data_fd, index_fd = fds
    with ExitStack() as undo:
        made = [_memfd("sealed"), _memfd("listing")]
        undo.callback(framing.close_all, made)
        index = b"".join(_pieces(index_fd, stop))
        if index:
            digest = hashlib.sha256()
            size = 0
            for piece in seal_outputs(key, index, _pieces(data_fd, stop), _size(data_fd)):
                _write(made[0], piece)
                digest.update(piece)
                size += len(piece)
            _write(made[1], b"%b\0%d\0%b\0" % (OUTPUTS_NAME.encode(), size, digest.hexdigest().encode()))
        undo.pop_all()
    return made


def _pieces(fd: int, stop: threading.Event) -> Iterator[bytes]:
    offset = 0
    while piece := os.pread(fd, PIECE, offset):
        if stop.is_set():
            raise InterruptedError
        offset += len(piece)
        yield piece


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _size(fd: int) -> int:
    return os.fstat(fd).st_size


def _memfd(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def freeze(fd: int) -> None:
    """Let nobody change a memfd from here on: what is hashed is what runs (F_ADD_SEALS, fcntl(2))."""
    try:
        missing = FROZEN & ~fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        if missing:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, missing)
    except OSError as error:
        raise RecordError(f"a descriptor is no memfd that can be frozen: {error.strerror}") from None
    if _size(fd) > MAX_INPUT_BYTES:
        raise RecordError(f"a memfd has more than {MAX_INPUT_BYTES} bytes")
