"""The record of one execution: what is measured and signed, and sealed before it leaves.

Clients' bytes are hashed and encrypted here; nothing parses them.
"""

import asyncio
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec
from nacl.public import PublicKey

from sandrun_executor.receipts.measures import Collected, Forged, measure, pieces, size_of, write
from sandrun_executor.receipts.worker_key import WorkerKey
from sandrun_shared import memfds
from sandrun_shared.jobs import LeftOut, LeftOutReason, Outcome, Verdict
from sandrun_shared.outputs import signed_index, times
from sandrun_shared.protocol import Execute, Finished, Output
from sandrun_shared.receipts import EMPTY_SHA256, SignedStatement, statement_of
from sandrun_shared.sealing import OUTPUTS_NAME, LogSealer, public_key, seal_outputs

INLINE_BYTES = 64 << 10  # about 50 µs of hashing; more goes to a thread
MAX_INPUT_BYTES = 4 << 30
SEALED_MODE = 0o600
NOT_COLLECTED = LeftOut(LeftOutReason.not_collected)
FROZEN = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


T = TypeVar("T")


class RecordError(Exception):
    """A request whose result could not be signed or sealed; the text says why."""


class Record:
    """Record of one execution: its outputs are always measured, with a worker key everything is."""

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
        """Hash the request's files while the sandbox works on them, never before the job has them."""
        if self._worker_key is not None:
            work = _offload(self._inputs, _digests, self._abandoned)
            self._hashing = asyncio.get_running_loop().create_task(work)

    def observe_output(self, output: Output) -> None:
        """Hash some output as it leaves."""
        if self._worker_key is not None:
            self._streams[output.stream].update(output.data)

    async def finished(
        self, outcome: Outcome, logs: tuple[Output, ...], collected: Collected
    ) -> tuple[Finished, tuple[int, int]]:
        """Build the last message and its descriptors; close() closes those made here.

        The collected files must be frozen, because they are read more than once. If they are inconsistent,
        the message has neither outputs nor a receipt.
        """
        for output in logs:
            self.observe_output(output)
        try:
            data_fd, index_fd, outputs_sha256 = await self._measured(collected)
        except Forged as error:
            outcome = msgspec.structs.replace(outcome, verdict=Verdict.internal_error, detail=str(error))
            return Finished(outcome, logs), (self._memfd(), self._memfd())
        except (OSError, MemoryError, EOFError):
            outcome, outputs_sha256 = without_outputs(outcome), EMPTY_SHA256
            data_fd, index_fd = self._memfd(), self._memfd()
        return Finished(outcome, logs, await self._signed(outcome, outputs_sha256)), (data_fd, index_fd)

    async def _measured(self, collected: Collected) -> tuple[int, int, str]:
        """Measure the outputs: data, index and digest. Raises Forged, OSError, MemoryError, EOFError."""
        limits = self._request.limits
        look = partial(measure, most_files=limits.output_files, most_bytes=limits.disk_bytes)
        index_fd = self._memfd()
        outputs_sha256 = await _offload([*collected.fds, index_fd], look, self._abandoned)
        if self._seal_to is None or not size_of(index_fd):
            return collected.data_fd, index_fd, outputs_sha256
        sealed = [self._memfd(), self._memfd()]
        seal = partial(_seal, self._seal_to)
        outputs_sha256 = await _offload([collected.data_fd, index_fd, *sealed], seal, self._abandoned)
        return sealed[0], sealed[1], outputs_sha256

    async def finish_unstarted(self, outcome: Outcome, log: bytes) -> tuple[Finished, tuple[int, int]]:
        """Build the last message of a job that never ran; log, from its set-up, becomes its stderr."""
        self.begin()
        nothing = Collected(self._memfd(), self._memfd(), self._memfd())
        logs: tuple[Output, ...] = (Output(2, log),) if log else ()
        if self.log_sealer is not None:
            logs = tuple(Output(1, line) for line in self.log_sealer.lines([(2, log)], last=True))
        return await self.finished(outcome, logs, nothing)

    def close(self) -> None:
        """Stop hashing and close every descriptor."""
        self._abandoned.set()
        if self._hashing is not None:
            self._hashing.cancel()
        while self._own:
            os.close(self._own.pop())

    async def _signed(self, outcome: Outcome, outputs_sha256: str) -> SignedStatement | None:
        if self._worker_key is None or self._hashing is None:
            return None
        order, upload, *stdin = await self._hashing
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
                outputs_sha256=outputs_sha256,
            )
        )

    def _memfd(self) -> int:
        self._own.append(memfds.create("outputs"))
        return self._own[-1]


def without_outputs(outcome: Outcome) -> Outcome:
    """Copy an outcome, with all outputs lost."""
    left_out = (*outcome.outputs_left_out, NOT_COLLECTED)
    return msgspec.structs.replace(outcome, outputs_truncated=True, outputs_left_out=left_out)


async def _offload(
    fds: list[int], work: Callable[[list[int], threading.Event], T], stop: threading.Event
) -> T:
    """Run work on these files: inline for little data, in a thread for much.

    A thread gets duplicated descriptors, since it may still read when the originals are closed.
    """
    if sum(map(size_of, fds)) <= INLINE_BYTES:
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
    """Hash each file (SHA-256 in hex). Raises InterruptedError once cancelled."""
    digests = []
    for fd in fds:
        digest = hashlib.sha256()
        for piece in pieces(fd, stop):
            digest.update(piece)
        digests.append(digest.hexdigest())
    return digests


def _seal(key: PublicKey, fds: list[int], stop: threading.Event) -> str:
    """Seal the outputs into the last two memfds, data and index; returns the digest that a receipt binds."""
    data_fd, index_fd, sealed_fd, listing_fd = fds
    digest = hashlib.sha256()
    size = 0
    index = b"".join(pieces(index_fd, stop))
    for piece in seal_outputs(key, index, pieces(data_fd, stop), size_of(data_fd)):
        write(sealed_fd, piece)
        digest.update(piece)
        size += len(piece)
    listing = signed_index([(OUTPUTS_NAME.encode(), SEALED_MODE, size, digest.hexdigest())])
    write(listing_fd, listing + times([int(time.time())]))
    return hashlib.sha256(listing).hexdigest()


def freeze(fd: int) -> None:
    """Freeze a memfd, so that what is hashed is what runs (F_ADD_SEALS, fcntl(2))."""
    try:
        missing = FROZEN & ~fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        if missing:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, missing)
    except OSError as error:
        raise RecordError(f"a descriptor is not a memfd that can be sealed: {error.strerror}") from None
    if size_of(fd) > MAX_INPUT_BYTES:
        raise RecordError(f"a memfd has more than {MAX_INPUT_BYTES} bytes")
