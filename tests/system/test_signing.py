"""The real executor with a worker key: signing, sealing and refusals."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from nacl.public import PrivateKey

from sandrun_shared import keys, receipts, sealing
from sandrun_shared.framing import close_all, encode, receive, send
from sandrun_shared.jobs import Verdict
from sandrun_shared.orders import Order, encode_bundle, encode_order
from sandrun_shared.protocol import Execute, Finished, Identified, Identify, Refused
from support.executor import QUICK, ExecutorProcess, JobConnection, Result, _decoder, memfd

READER = PrivateKey.generate()


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExecutorProcess]:
    """An executor with a key."""
    key = tmp_path_factory.mktemp("key") / "worker.key"
    keys.write_new(key, keys.KeyKind.worker, os.urandom(32))
    with ExecutorProcess(worker_key=key) as running:
        yield running


def signed(result: Result) -> receipts.Statement:
    """The statement that came with the last event, its signature checked."""
    finished = result.events[-1]
    assert isinstance(finished, Finished)
    assert finished.receipt is not None
    receipts.verify(receipts.Receipt(finished.receipt.statement, keys.text_of(finished.receipt.signature)))
    return finished.receipt.statement


def sealed_job(executor: ExecutorProcess, code: str, **fields: object) -> JobConnection:
    """A job that is sealed to READER."""
    fds = [memfd(encode_order(Order("main"))), memfd(encode_bundle({"main": code.encode()}))]
    sock = executor.connect()
    to = bytes(READER.public_key)
    send(sock, Execute("test", "python3", QUICK, encrypt_to=to, **fields), tuple(fds))  # type: ignore[arg-type]
    close_all(fds)
    return JobConnection(sock)


def test_a_large_upload_is_measured(signing: ExecutorProcess) -> None:
    files = {"main": b"print(open('big', 'rb').read(3))", "big": os.urandom(20 << 20)}
    result = signing.run_job(files)
    result.ok()
    statement = signed(result)
    assert statement.upload_sha256 == hashlib.sha256(encode_bundle(files)).hexdigest()
    assert statement.order_sha256 == hashlib.sha256(encode_order(Order("main"))).hexdigest()
    assert statement.worker_id == signing.describe().worker_id


def test_more_output_than_one_message(signing: ExecutorProcess) -> None:
    result = signing.run_job(
        "import sys\nfor n in range(100_000): print(n)\nprint('x' * 99_999, file=sys.stderr)"
    )
    statement = signed(result)
    assert statement.stdout_sha256 == hashlib.sha256(result.stdout).hexdigest()
    assert statement.stderr_sha256 == hashlib.sha256(result.stderr).hexdigest()
    assert (statement.stdout_bytes, statement.stderr_bytes) == (len(result.stdout), 100_000)


@pytest.mark.parametrize(
    ("code", "verdict", "exit_code"),
    [
        ("import os; os.kill(os.getpid(), 9)", Verdict.signaled, 137),
        ("while True: pass", Verdict.cpu_time_limit, None),
    ],
)
def test_every_end_is_signed(
    signing: ExecutorProcess, code: str, verdict: Verdict, exit_code: int | None
) -> None:
    limits = QUICK if exit_code else type(QUICK)(wall_seconds=20.0, cpu_seconds=0.2)
    statement = signed(signing.run_job(code, limits=limits))  # type: ignore[arg-type]
    assert statement.verdict == verdict
    if exit_code is not None:
        assert statement.exit_code == exit_code


@pytest.mark.parametrize("key", [True, False])
def test_sealed_results(signing: ExecutorProcess, executor: ExecutorProcess, key: bool) -> None:
    code = "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr)\nopen('f', 'wb').write(b'7' * 3_000_000)"
    result = sealed_job(signing if key else executor, code).wait()
    assert result.outcome.verdict == Verdict.ok
    assert b"out" not in result.stdout
    assert result.stderr == b""
    assert sealing.open_logs(READER, result.stdout) == ([(1, b"out\n"), (2, b"err\n")], True)
    assert list(result.outputs) == [sealing.OUTPUTS_NAME]
    if key:
        assert signed(result).stdout_sha256 == hashlib.sha256(result.stdout).hexdigest()
    else:
        assert isinstance(result.events[-1], Finished)
        assert result.events[-1].receipt is None


def test_sealed_output_comes_while_the_job_runs(signing: ExecutorProcess) -> None:
    job = sealed_job(signing, "import time\nprint('early', flush=True)\ntime.sleep(100)")
    job.until(lambda job: bool(job.logs[1]))
    assert sealing.open_logs(READER, bytes(job.logs[1])) == ([(1, b"early\n")], False)
    job.hang_up()


def test_memfds_that_may_still_change_are_refused(signing: ExecutorProcess) -> None:
    upload = os.memfd_create("unsealable")
    os.write(upload, encode_bundle({"main": b"print(1)"}))
    order = memfd(encode_order(Order("main")))
    with signing.connect() as sock:
        send(sock, Execute("test", "python3", QUICK), (order, upload))
        close_all([order, upload])
        received = receive(sock, _decoder)
    assert received is not None
    assert isinstance(received[0], Refused)
    assert received[0].reason == "invalid"
    assert "sealed" in received[0].detail


def test_identity_is_proven(signing: ExecutorProcess, executor: ExecutorProcess) -> None:
    for running in (signing, executor):
        with running.connect() as sock:
            send(sock, Identify("n0nce"))
            received = receive(sock, _decoder)
        assert received is not None
        proof = received[0]
        assert isinstance(proof, Identified)
        assert proof.worker_id == running.describe().worker_id
        if running is signing:
            receipts.verify_nonce(proof.worker_id, "n0nce", keys.text_of(proof.signature))
        else:
            assert proof == Identified()


@pytest.mark.parametrize("nonce", ["", "x" * 129, "sandrun receipt v1\0{}", "é"])
def test_malformed_nonces(signing: ExecutorProcess, nonce: str) -> None:
    with signing.connect() as sock:
        sock.send(encode(Identify(nonce)))
        received = receive(sock, _decoder)
    assert received is not None
    assert isinstance(received[0], Refused)


def test_a_key_that_others_can_read_ends_the_start(executor: ExecutorProcess, tmp_path: Path) -> None:
    key = tmp_path / "worker.key"
    keys.write_new(key, keys.KeyKind.worker, os.urandom(32))
    key.chmod(0o644)
    refusing = ExecutorProcess(worker_key=key)
    try:
        with pytest.raises(AssertionError, match=f"chmod 600 {key}"):
            refusing.start()
        assert refusing.process is not None
        assert refusing.process.returncode not in (0, None)
    finally:
        refusing.close()
