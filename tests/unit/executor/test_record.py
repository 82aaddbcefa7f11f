"""What is signed is what ran, and what is sealed is all that leaves."""

import asyncio
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nacl.public import PrivateKey

from sandrun_executor.receipts import measures
from sandrun_executor.receipts import record as records
from sandrun_executor.receipts.measures import Collected
from sandrun_executor.receipts.record import Record, RecordError
from sandrun_executor.receipts.worker_key import WorkerKey
from sandrun_shared import keys, receipts, sealing
from sandrun_shared.jobs import LeftOutReason, Limits, Outcome, Verdict
from sandrun_shared.keys import KeyFileError, KeyKind, write_new
from sandrun_shared.outputs import decode_index
from sandrun_shared.protocol import Execute, Finished, Output
from support.executor import memfd
from support.outputs import index_of, signed_sha256

KEY = WorkerKey(b"\3" * 32)
READER = PrivateKey(b"\5" * 32)
OK = Outcome(Verdict.ok, 0)
Make = Callable[[bytes], int]


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def make() -> Iterator[Make]:
    """memfds that are closed at the end."""
    made: list[int] = []

    def one(data: bytes) -> int:
        made.append(memfd(data))
        return made[-1]

    yield one
    for fd in made:
        os.close(fd)


def request(**fields: object) -> Execute:
    return Execute("job", "python3", Limits(), **fields)  # type: ignore[arg-type]


def collected(make: Make, files: dict[str, bytes]) -> Collected:
    """Make what a collector leaves of these files."""
    return Collected(
        make(b"".join(files.values())),
        make(b"".join(b"%b\x00644\0" % path.encode() for path in files)),
        make(b"".join(len(data).to_bytes(8, "big") + (5).to_bytes(8, "big") for data in files.values())),
    )


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def finish(record: Record, logs: tuple[Output, ...], left: Collected) -> tuple[Finished, bytes, bytes]:
    """The last message, and what its descriptors hold."""

    async def run() -> tuple[Finished, bytes, bytes]:
        record.begin()
        finished, fds = await record.finished(OK, logs, left)
        held = content(fds[0]), content(fds[1])
        record.close()
        await asyncio.get_running_loop().shutdown_default_executor()
        return finished, *held

    return asyncio.run(run())


@pytest.mark.parametrize("size", [10, 5 << 20])
def test_everything_is_measured_here(make: Make, size: int) -> None:
    order, upload, stdin = b"order", bytes(size), b"typed"
    files = {"a": b"out", "b": bytes(size)}
    fds = [make(item) for item in (order, upload, stdin)]
    record = Record(KEY, request(has_stdin=True, manifest_sha256=sha(b"m")), fds)
    record.observe_output(Output(1, b"early "))
    logs = (Output(2, b"oops"), Output(1, b"late"))
    finished, *held = finish(record, logs, collected(make, files))
    assert held == [b"".join(files.values()), index_of(files, modified=5)]
    assert finished.receipt is not None
    statement = finished.receipt.statement
    receipts.verify(receipts.Receipt(statement, keys.text_of(finished.receipt.signature)))
    assert statement.order_sha256 == sha(order)
    assert statement.upload_sha256 == sha(upload)
    assert statement.stdin_sha256 == sha(stdin)
    assert statement.stdout_sha256 == sha(b"early late")
    assert statement.stderr_sha256 == sha(b"oops")
    assert statement.outputs_sha256 == signed_sha256(files)
    assert statement.worker_id == KEY.worker_id


def test_nothing_is_signed_without_a_key(make: Make) -> None:
    fds, files = [make(b"") for _ in range(2)], {"a": b"x"}
    finished, *held = finish(Record(None, request(), fds), (), collected(make, files))
    assert (finished, held) == (Finished(OK), [b"x", index_of(files, modified=5)])
    os.write(fds[0], b"still ours")


@pytest.mark.parametrize("reader", [None, READER])
def test_what_does_not_add_up_is_neither_a_result_nor_signed(make: Make, reader: PrivateKey | None) -> None:
    left = collected(make, {"a": b"x"})
    os.pwrite(left.numbers_fd, (7).to_bytes(8, "big"), 0)
    to = None if reader is None else bytes(reader.public_key)
    finished, *held = finish(Record(KEY, request(encrypt_to=to), [make(b""), make(b"")]), (), left)
    assert (finished.outcome.verdict, finished.receipt, held) == (Verdict.internal_error, None, [b"", b""])
    assert finished.outcome.exit_code == 0


def test_what_is_hashed_cannot_change_any_more(make: Make) -> None:
    fds = [make(b"order"), make(b"upload")]
    Record(KEY, request(), fds)
    for fd in fds:
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 1)
    Record(KEY, request(), fds)  # the same job, handed over again


def test_descriptors_that_cannot_be_frozen_are_refused(make: Make, tmp_path: Path) -> None:
    unsealable = os.memfd_create("plain")
    read_end, write_end = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        for fd in (unsealable, read_end, file):
            with pytest.raises(RecordError, match="sealed"):
                Record(KEY, request(), [make(b""), fd])
    finally:
        for fd in (unsealable, read_end, write_end, file):
            os.close(fd)


def test_an_endless_input_is_refused_unread(make: Make) -> None:
    fd = make(b"")
    os.ftruncate(fd, records.MAX_INPUT_BYTES + 1)
    with pytest.raises(RecordError, match="more than"):
        Record(KEY, request(), [fd])


@pytest.mark.parametrize("raw", [bytes(32), b"\1" + bytes(31)])
def test_keys_that_hide_nothing_are_refused(raw: bytes) -> None:
    with pytest.raises(RecordError, match="encrypt_to"):
        Record(None, request(encrypt_to=raw), [])


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("size", [10, 3 << 20])
def test_outputs_leave_sealed(make: Make, key: WorkerKey | None, size: int) -> None:
    files = {"secret/a": b"\7" * size, "b": b"canary"}
    record = Record(key, request(encrypt_to=bytes(READER.public_key)), [make(b""), make(b"")])
    finished, data, index = finish(record, (), collected(make, files))
    (entry,) = decode_index(index, len(data))
    assert (entry.path, entry.sha256_hex) == (sealing.OUTPUTS_NAME, sha(data))
    assert b"canary" not in data
    assert b"secret" not in data
    file = io.BytesIO(data)
    file.seek(len(sealing.MAGIC))
    outputs = sealing.SealedOutputs(READER, file)
    assert {entry.path: b"".join(pieces) for entry, pieces in outputs.files()} == files
    if key is None:
        assert finished.receipt is None
    else:
        assert finished.receipt is not None
        assert finished.receipt.statement.outputs_sha256 == sha(index[:-8])  # but for the time
        assert finished.receipt.statement.encrypt_to == keys.text_of(bytes(READER.public_key))


def test_no_outputs_make_no_sealed_file(make: Make) -> None:
    record = Record(None, request(encrypt_to=bytes(READER.public_key)), [make(b""), make(b"")])
    finished, data, index = finish(record, (), collected(make, {}))
    assert (finished.outcome.outputs_truncated, data, index) == (False, b"", b"")


@pytest.mark.parametrize("to", [None, READER])
def test_full_memory_leaves_no_outputs(
    make: Make, monkeypatch: pytest.MonkeyPatch, to: PrivateKey | None
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    record = Record(KEY, request(encrypt_to=to and bytes(to.public_key)), [make(b""), make(b"")])
    left = collected(make, {"a": b"x"})
    monkeypatch.setattr(measures.os, "write", full)
    finished, data, index = finish(record, (), left)
    assert (finished.outcome.outputs_truncated, data, index) == (True, b"", b"")
    assert [item.reason for item in finished.outcome.outputs_left_out] == [LeftOutReason.not_collected]
    assert finished.receipt is not None
    assert finished.receipt.statement.outputs_truncated
    assert finished.receipt.statement.outputs_sha256 == receipts.EMPTY_SHA256


def test_jobs_that_are_given_up_leave_nothing_open(make: Make) -> None:
    fds = [make(b""), make(bytes(8 << 20))]

    async def run() -> None:
        given_up = [Record(KEY, request(), fds) for _ in range(20)]  # more than there are threads
        for record in given_up:
            record.begin()
        await asyncio.sleep(0)
        for record in given_up:
            record.close()
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(run())


def test_no_setting_is_no_key() -> None:
    assert WorkerKey.load("", {}) is None


def test_a_key_by_path_and_as_credential(tmp_path: Path) -> None:
    write_new(tmp_path / "worker_key", KeyKind.worker, b"\3" * 32)
    (tmp_path / "worker_key").chmod(0o400)  # as systemd has it
    for setting, environ in (
        (str(tmp_path / "worker_key"), {}),
        ("worker_key", {"CREDENTIALS_DIRECTORY": str(tmp_path)}),
    ):
        loaded = WorkerKey.load(setting, environ)
        assert loaded is not None
        assert loaded.worker_id == KEY.worker_id


def test_a_credential_that_was_not_passed() -> None:
    with pytest.raises(KeyFileError, match="LoadCredential=worker_key"):
        WorkerKey.load("worker_key", {})


def test_a_nonce_is_signed() -> None:
    receipts.verify_nonce(KEY.worker_id, "n0nce", keys.text_of(KEY.sign_nonce("n0nce")))
