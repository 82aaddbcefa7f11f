"""Receipts: every change is detected, and no signature is valid for another kind."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from sandrun_shared import canonical, jobs, receipts
from sandrun_shared.jobs import Limits, Outcome, Verdict
from sandrun_shared.keys import text_of
from sandrun_shared.outputs import OutputEntry
from sandrun_shared.receipts import ListedOutput, Receipt, ReceiptError

KEY = SigningKey(bytes(range(32)))
WORKER = text_of(bytes(KEY.verify_key))
paths = st.binary(min_size=1, max_size=30).filter(lambda raw: b"\0" not in raw)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
modes = st.integers(0, 0o777)
outputs = st.lists(st.tuples(paths, st.integers(0, 2**40), digests, modes), max_size=4)
words = st.text("abcXYZ019_.+-", min_size=1, max_size=64)
outcomes = st.builds(
    Outcome,
    verdict=st.sampled_from(Verdict),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    cpu_seconds=st.floats(0, 1e6),
    wall_seconds=st.floats(-1, 1e6),
    memory_peak_bytes=st.integers(0, 2**40),
    stdout_bytes=st.integers(0, 2**40),
    logs_truncated=st.booleans(),
    outputs_truncated=st.booleans(),
)


@st.composite
def made_receipts(draw: st.DrawFn) -> Receipt:
    """A receipt as an executor and the api make it, or as they made it with version 1."""
    version = draw(st.sampled_from([1, 2]))
    listed = tuple(ListedOutput.of_file(*item) for item in draw(outputs))
    if version == 1:
        listed = tuple(msgspec.structs.replace(item, mode=None) for item in listed)
    statement = receipts.statement_of(
        draw(outcomes),
        Limits(cpu_seconds=draw(st.none() | st.floats(0.1, 1e6))),
        worker_id=WORKER,
        manifest_sha256=draw(digests),
        upload_sha256=draw(digests),
        encrypt_to=draw(st.none() | st.binary(min_size=32, max_size=32)),
        order_sha256=draw(digests),
        stdin_sha256=draw(st.none() | digests),
        interpreter=draw(words),
        environment=draw(words),
        warm=draw(st.booleans()),
        finished_unix_seconds=draw(st.integers(0, 2**40)),
        stdout_sha256=draw(digests),
        stderr_sha256=draw(digests),
        outputs_sha256=receipts.index_sha256(listed, version),
    )
    statement = msgspec.structs.replace(statement, version=version)
    signature = receipts.sign(KEY, statement).signature
    return Receipt(statement, text_of(signature), listed if draw(st.booleans()) else None)


def holds(data: bytes) -> bool:
    try:
        receipts.verify(receipts.parse(data))
    except ReceiptError:
        return False
    return True


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values of a document are."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for key, item in enumerate(value) for leaf in leaves(item, (*path, key))]
    return [path]


@given(made_receipts())
def test_what_was_signed_verifies_however_it_is_laid_out(receipt: Receipt) -> None:
    data = msgspec.json.encode(receipt)
    assert holds(data)
    assert holds(json.dumps(json.loads(data), indent=4, sort_keys=True).encode())
    assert holds(json.dumps({"job_id": "x", "receipt": json.loads(data)}).encode())


@given(made_receipts(), st.data())
def test_any_changed_byte_fails(receipt: Receipt, data: st.DataObject) -> None:
    good = msgspec.json.encode(receipt)
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[place]))
    bad = good[:place] + bytes([byte]) + good[place + 1 :]
    if holds(bad):  # then it must say the very same: an escape spelt in capitals
        assert json.loads(bad) == json.loads(good)
        assert bad.lower() == good.lower()


@given(made_receipts(), st.data())
def test_any_changed_field_fails(receipt: Receipt, data: st.DataObject) -> None:
    document = json.loads(msgspec.json.encode(receipt))
    *way, last = data.draw(st.sampled_from(leaves(document)))
    inner = document
    for step in way:
        inner = inner[step]
    before = inner[last]
    if data.draw(st.booleans()):
        after: Any = data.draw(st.none() | st.booleans() | st.integers() | st.text(max_size=70) | digests)
        if (after, type(after)) == (before, type(before)):
            return
        inner[last] = after
    elif isinstance(inner, dict):
        del inner[last]
    else:
        return
    if way or last != "outputs":  # the list itself may be missing, as in a header: then nothing is claimed
        assert not holds(json.dumps(document).encode())


@given(made_receipts())
def test_the_quick_encoder_is_canonical(receipt: Receipt) -> None:
    statement = receipt.statement
    expected = canonical.encode(msgspec.to_builtins(statement))
    assert receipts.signed_bytes(statement) == receipts.RECEIPT_DOMAIN + expected


@given(outputs)
def test_the_list_gives_the_bytes_of_the_index(items: list[tuple[bytes, int, str, int]]) -> None:
    listed = [
        ListedOutput.of(OutputEntry(path.decode("utf-8", "surrogateescape"), size, digest, 0, mode, 5))
        for path, size, digest, mode in items
    ]
    count = len(items).to_bytes(8, "big") if items else b""
    measures = b"".join(size.to_bytes(8, "big") + bytes.fromhex(digest) for _, size, digest, _ in items)
    names = b"".join(path + b"\0" + f"{mode:03o}".encode() + b"\0" for path, _, _, mode in items)
    assert receipts.index_sha256(listed) == hashlib.sha256(count + measures + names).hexdigest()
    first = b"".join(b"%b\0%d\0%b\0" % (path, size, digest.encode()) for path, size, digest, _ in items)
    assert receipts.index_sha256(listed, 1) == hashlib.sha256(first).hexdigest()


def test_the_program_in_the_documentation_is_of_the_same_mind() -> None:
    """An independent verifier, which shares only the format with ours."""
    text = (Path(__file__).parents[3] / "docs" / "receipts.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)

    def status_of(document: Any) -> int:
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps({"receipt": document}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode

    files = [
        ListedOutput.of_file(b"a/b.txt", 3, "ab" * 32, 0o644),
        ListedOutput.of_file(b"\xff", 0, "0" * 64, 0),
    ]
    for listed in ([], files):
        statement = msgspec.structs.replace(
            receipts.parse(OLD.encode()).statement, version=2, outputs_sha256=receipts.index_sha256(listed)
        )
        signature = text_of(receipts.sign(KEY, statement).signature)
        document = json.loads(msgspec.json.encode(Receipt(statement, signature, tuple(listed))))
        assert holds(json.dumps(document).encode())
        assert status_of(document) == 0
    for changed in (
        {**document, "statement": {**document["statement"], "exit_code": 1}},
        {**document, "outputs": document["outputs"][:1]},
        {**document, "outputs": [{**document["outputs"][0], "mode": "755"}, document["outputs"][1]]},
    ):
        assert not holds(json.dumps(changed).encode())
        assert status_of(changed) == 1


# Signed by version 1, before there were modes.
OLD = (
    r'{"statement":{"version":1,"worker_id":"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=","job_hash":"23e'
    r'81d7f856ce0903c8a1f53021b362e51011cc5cd9ae014eb7b1684c3bb6d18","manifest_sha256":"aaaaaaaaaaaaaaaaaa'
    r'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","upload_sha256":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'
    r'bbbbbbbbbbbbbbbbbbbbbbbbbbbbb","order_sha256":"ccccccccccccccccccccccccccccccccccccccccccccccccccccc'
    r'ccccccccccc","stdin_sha256":null,"interpreter":"python3","environment":"default","warm":true,"encryp'
    r't_to":null,"limits":{"wall_microseconds":300000000,"cpu_microseconds":null,"memory_bytes":536870912,'
    r'"disk_bytes":104857600,"inodes":20000,"processes":128,"open_files":1024,"log_bytes":10485760,"cpu_mi'
    r'llicores":1000,"output_files":1000},"verdict":"ok","exit_code":0,"signal":null,"finished_unix_second'
    r's":1,"cpu_microseconds":0,"wall_microseconds":0,"setup_microseconds":0,"memory_peak_bytes":0,"stdout'
    r'_bytes":0,"stdout_sha256":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","stderr'
    r'_bytes":0,"stderr_sha256":"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee","logs_t'
    r'runcated":false,"outputs_sha256":"a3d431bc14cf42ed0c8278ea3695ee2c5ffa061374c2b4b3de0471a1b4c24f7a",'
    r'"outputs_truncated":false},"signature":"O8JPMzopkbgB9FJ8OBdg/a1HrvQAgvEKbNgy9TUMXLA3T32KVWU7V7ACUUF2'
    r'1Wtt37zIoYuD08gIgf9BMSNtBw==","outputs":[{"path":"a.txt","size_bytes":1,"sha256":"000000000000000000'
    r'0000000000000000000000000000000000000000000000"},{"path":"\\xff","size_bytes":2,"sha256":"1111111111'
    r'111111111111111111111111111111111111111111111111111111","path_base64":"/w=="}]}'
)


def test_an_old_receipt_still_holds() -> None:
    receipt = receipts.parse(OLD.encode())
    receipts.verify(receipt)
    assert (receipt.statement.version, len(receipt.outputs or ())) == (1, 2)
    newer = msgspec.structs.replace(receipt.statement, version=2)
    with pytest.raises(ReceiptError):
        receipts.verify(msgspec.structs.replace(receipt, statement=newer))


def test_an_output_without_a_mode_is_of_version_1_only() -> None:
    listed = [ListedOutput.of_file(b"a", 1, "0" * 64, None)]
    assert receipts.index_sha256(listed, 1) == hashlib.sha256(b"a\x001\0" + b"0" * 64 + b"\0").hexdigest()
    with pytest.raises(ReceiptError, match="no mode"):
        receipts.index_sha256(listed)


@pytest.mark.parametrize(
    "listed",
    [
        {"path": "a\\xff", "path_base64": "YQ=="},
        {"path": "a", "path_base64": "YQ=="},
        {"path": "b\\xff", "path_base64": "Yf8="},
        {"path": "a\\xff", "path_base64": "Yf9="},
        {"path": "a\\xff", "path_base64": "?"},
    ],
)
def test_two_forms_of_a_path_must_agree(listed: dict[str, str]) -> None:
    item = msgspec.convert({"size_bytes": 0, "sha256": "0" * 64, **listed}, ListedOutput)
    with pytest.raises(ReceiptError):
        item.raw_path()


@given(made_receipts())
def test_somebody_elses_signature_is_none(receipt: Receipt) -> None:
    other = SigningKey(b"\1" * 32)
    forged = receipts.sign(other, receipt.statement).signature
    with pytest.raises(ReceiptError, match="does not hold"):
        receipts.verify(msgspec.structs.replace(receipt, signature=text_of(forged)))


@given(st.text("abcXYZ019+/=_.~-", min_size=1, max_size=128), made_receipts())
def test_a_nonce_is_never_a_receipt(nonce: str, receipt: Receipt) -> None:
    signature = text_of(receipts.sign_nonce(KEY, nonce))
    receipts.verify_nonce(WORKER, nonce, signature)
    with pytest.raises(ReceiptError):
        receipts.verify_nonce(WORKER, nonce + "x", signature)
    with pytest.raises(ReceiptError):
        receipts.verify_nonce(WORKER, nonce, receipt.signature)
    # Whatever the nonce: what is signed for it cannot begin as a receipt does, nor the other way round.
    assert not receipts.RECEIPT_DOMAIN.startswith(receipts.NONCE_DOMAIN[: len(receipts.RECEIPT_DOMAIN)])
    signed = receipts.signed_bytes(receipt.statement)
    with pytest.raises(ReceiptError):
        receipts.verify_nonce(WORKER, signed.decode(), text_of(KEY.sign(signed).signature))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"receipt": null}',
        '{"statement": 1, "statement": 2}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "ä",
        "Sandrun-Receipt: e30=",
    ],
)
def test_what_is_no_receipt(text: str) -> None:
    with pytest.raises(ReceiptError):
        receipts.parse(text.encode())


def test_the_hash_of_a_job_is_that_of_its_parts() -> None:
    one, two = "a" * 64, "b" * 64
    text = f'{{"manifest_sha256":"{one}","upload_sha256":"{two}"}}'
    assert receipts.job_hash(one, two) == hashlib.sha256(text.encode()).hexdigest()


def test_every_limit_has_its_place_in_a_receipt_and_in_a_status() -> None:
    names = [field.name for field in msgspec.structs.fields(Limits)]
    assert [form.name for form in jobs.LIMIT_FORMS] == names
    assert [form.stated for form in jobs.LIMIT_FORMS] == [
        field.name for field in msgspec.structs.fields(receipts.StatedLimits)
    ]
    limits = Limits(wall_seconds=0.1, cpu_seconds=1 / 3, memory_bytes=(64 << 20) + 1, cpu_cores=0.25)
    stated = receipts.StatedLimits.of(limits)
    assert (stated.wall_microseconds, stated.cpu_microseconds) == (100_000, 333_333)
    assert (stated.memory_bytes, stated.cpu_millicores) == ((64 << 20) + 1, 250)
    assert receipts.StatedLimits.of(Limits()).cpu_microseconds is None
    assert jobs.shown(limits) == {
        "timeout": 0.1,
        "cpu_seconds": 1 / 3,
        "memory_mb": 64,
        "disk_mb": 100,
        "inodes": 20_000,
        "processes": 128,
        "open_files": 1024,
        "log_mb": 10,
        "cpu_cores": 0.25,
        "output_files": 1000,
    }
