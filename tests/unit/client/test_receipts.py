"""What the client demands with `verify_with`: that all it was given is what the worker signed."""

import base64
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
from nacl.signing import SigningKey

from sandrun_api.jobs import manifest as manifests
from sandrun_client import Logs, OutputFile, ReceiptError, receipts
from sandrun_shared import receipts as theirs
from sandrun_shared.jobs import Limits, Outcome, Verdict
from sandrun_shared.keys import text_of
from sandrun_shared.orders import encode_bundle
from support import http_answers as answer

KEY = SigningKey(bytes(range(32)))
WORKER = text_of(bytes(KEY.verify_key))
OTHER = text_of(bytes(SigningKey(bytes(32)).verify_key))
FILES = [
    theirs.ListedOutput.of_file(b"a.txt", 1, "0" * 64, 0o644),
    theirs.ListedOutput.of_file(b"\xff", 2, "1" * 64, 0o755),
]


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def receipt_for(
    *,
    upload: bytes = b"",
    manifest: dict[str, Any] | None = None,
    files: Any = FILES,
    stdout: bytes = b"hi\n",
    key: SigningKey = KEY,
) -> dict[str, Any]:
    """What the server's own code makes of a job, as JSON."""
    parsed = manifests.parse(json.dumps(manifest or {"entrypoint": "main.py"}))
    statement = theirs.statement_of(
        Outcome(Verdict.ok, 0, None, "", 0.25, 0.5, 0.1, 4096, len(stdout), 0),
        Limits(cpu_seconds=1.5),
        worker_id=text_of(bytes(key.verify_key)),
        manifest_sha256=manifests.digest(parsed),
        upload_sha256=sha256(upload),
        encrypt_to=None,
        order_sha256="2" * 64,
        stdin_sha256=None,
        interpreter="python3",
        environment="default",
        warm=True,
        finished_unix_seconds=1,
        stdout_sha256=sha256(stdout),
        stderr_sha256=sha256(b""),
        outputs_sha256=theirs.index_sha256(files),
    )
    signed = theirs.sign(key, statement)
    receipt = theirs.Receipt(statement, text_of(signed.signature), tuple(files))
    document: dict[str, Any] = json.loads(msgspec.json.encode(receipt))
    return document


def test_what_the_server_signs_holds() -> None:
    receipt = receipt_for(upload=b"upload")
    checked = receipts.check(receipt, WORKER)
    receipts.check_ending(checked, answer.status())
    receipts.check_logs(checked, Logs(b"hi\n", b""))
    receipts.check_job(checked, sha256(b"upload"), {"entrypoint": "main.py", "warm": True, "env": {}})
    receipts.check_files(checked, [OutputFile("a.txt", 1, "0" * 64), OutputFile("\\xff", 2, "1" * 64)])


FIELDS = sorted(set(theirs.Statement.__struct_fields__) - {"worker_id"})


@pytest.mark.parametrize("name", FIELDS)
def test_no_field_of_a_statement_can_be_changed(name: str) -> None:
    receipt = receipt_for()
    value = receipt["statement"][name]
    receipt["statement"][name] = (not value) if isinstance(value, bool) else {"changed": True}
    with pytest.raises(ReceiptError):
        receipts.check(receipt, WORKER)


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.update(signature=r["signature"][:-4] + "AAA="),
        lambda r: r.update(signature=r["signature"].rstrip("=")),
        lambda r: r.update(signature=None),
        lambda r: r["outputs"].pop(),
        lambda r: r["outputs"][0].update(path="b.txt"),
        lambda r: r["outputs"][1].update(path="other"),
        lambda r: r["outputs"][0].pop("sha256"),
        lambda r: r["outputs"][0].pop("mode"),
        lambda r: r["outputs"][1].update(mode="644"),
        lambda r: r["outputs"][1].update(size_bytes=-1),
        lambda r: r["outputs"].append(3),
        lambda r: r["statement"].pop("verdict"),
        lambda r: r["statement"].update(extra=1),
        lambda r: r["statement"].update(exit_code=0.5),
    ],
)
def test_a_damaged_receipt_does_not_hold(damage: Callable[[Any], Any]) -> None:
    receipt = receipt_for()
    damage(receipt)
    with pytest.raises(ReceiptError):
        receipts.check(receipt, WORKER)


@pytest.mark.parametrize("receipt", [None, {}, {"statement": 3}, [], "x"])
def test_no_receipt_is_an_error(receipt: Any) -> None:
    with pytest.raises(ReceiptError, match="no receipt"):
        receipts.check(receipt, WORKER)


def test_another_worker_is_not_this_one() -> None:
    with pytest.raises(ReceiptError, match="not of"):
        receipts.check(receipt_for(), OTHER)


@pytest.mark.parametrize("version", [0, 3, "2", None, True])
def test_a_version_that_is_not_known(version: Any) -> None:
    receipt = receipt_for()
    receipt["statement"].update(version=version, another_field=1)
    with pytest.raises(ReceiptError, match="version 3" if version == 3 else "no receipt"):
        receipts.check(receipt, WORKER)


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"timeout": 5},
        {"timeout": 0.0001, "cpu_seconds": 2.5, "memory_mb": 64},
        {"args": ["ä", "\u2028"], "env": {"B": "1", "A": "\x01"}, "stdin": "x"},
        {"interpreter": "node", "outputs": ["a/"], "warm": False, "priority": "batch"},
        {"environment": "default", "args": [], "env": {}, "warm": True, "priority": "normal", "outputs": []},
        {"environment": None, "args": None, "timeout": None, "gpu": None, "stdin": None},
        {"gpu": {}},
        {"gpu": {"required": True, "device_id": None, "min_vram_gb": 80}},
        {"gpu": {"required": False, "cuda_version": "12.4"}},
    ],
)
def test_a_manifest_has_the_digest_that_the_api_states(manifest: dict[str, Any]) -> None:
    """What the client knows is the document; what the api knows is what its model made of it."""
    whole = {"entrypoint": "main.py", **manifest}
    receipt = receipts.check(receipt_for(upload=b"upload", manifest=whole), WORKER)
    receipts.check_job(receipt, sha256(b"upload"), whole)
    with pytest.raises(ReceiptError, match="the manifest is another one"):
        receipts.check_job(receipt, sha256(b"upload"), {**whole, "timeout": 7})


@pytest.mark.parametrize("value", [float("nan"), 2**53, "\ud800"])
def test_a_manifest_without_a_canonical_form(value: Any) -> None:
    receipt = receipts.check(receipt_for(upload=b"upload"), WORKER)
    with pytest.raises(ReceiptError, match="no canonical form"):
        receipts.check_job(receipt, sha256(b"upload"), {"entrypoint": "main.py", "timeout": value})


def test_nonces() -> None:
    signature = text_of(theirs.sign_nonce(KEY, "n0nce"))
    receipts.check_nonce(WORKER, "n0nce", signature)
    for worker, nonce, given_signature in (
        (OTHER, "n0nce", signature),
        (WORKER, "other", signature),
        (WORKER, "n0nce", None),
        ("no key", "n0nce", signature),
    ):
        with pytest.raises(ReceiptError):
            receipts.check_nonce(worker, nonce, given_signature)


RUN_MANIFEST = {"entrypoint": "main.py", "interpreter": "python3", "timeout": 5}


def run_answer(**changes: Any) -> dict[str, Any]:
    upload = encode_bundle({"x.txt": b"x", "main.py": b"code"})
    receipt = receipt_for(upload=upload, manifest=RUN_MANIFEST, files=[])
    return answer.result(receipt=receipt, **changes)


def test_a_run_is_checked_from_its_code_to_its_output(connect: Callable[..., Any]) -> None:
    client = connect(lambda _: httpx.Response(200, json=run_answer()), verify_with=WORKER)
    assert client.run("code", interpreter="python", files={"x.txt": "x"}, timeout=5).ok
    for code, files, timeout in (("other", {"x.txt": "x"}, 5), ("code", {}, 5), ("code", {"x.txt": "x"}, 6)):
        with pytest.raises(ReceiptError, match="not what was sent"):
            client.run(code, interpreter="python", files=files, timeout=timeout)


@pytest.mark.parametrize(
    "changes",
    [
        {"stdout": "ho\n"},
        {"stderr": "x"},
        {"exit_code": 1},
        {"verdict": "nonzero_exit"},
        {"files": [{"path": "a", "size_bytes": 1, "sha256": "0" * 64}]},
        {"receipt": None},
    ],
)
def test_an_answer_that_differs_from_its_receipt(
    connect: Callable[..., Any], changes: dict[str, Any]
) -> None:
    body = {**run_answer(), **changes}
    with pytest.raises(ReceiptError):
        connect(lambda _: httpx.Response(200, json=body), verify_with=WORKER).run(
            "code", files={"x.txt": "x"}, timeout=5
        )


def test_a_status_that_differs_from_its_receipt(connect: Callable[..., Any]) -> None:
    body = answer.status(receipt=receipt_for(files=[]))
    assert connect(lambda _: httpx.Response(200, json=body), verify_with=WORKER).get_status("job").ok
    wrong = body | {"exit_code": 1}
    with pytest.raises(ReceiptError, match="exit_code"):
        connect(lambda _: httpx.Response(200, json=wrong), verify_with=WORKER).get_status("job")


@pytest.mark.parametrize("text", ["hi\n", "ho\n", ""])
def test_live_output_is_compared_once_the_job_has_ended(connect: Callable[..., Any], text: str) -> None:
    body = answer.status(receipt=receipt_for(files=[]))
    wire = answer.output_event(3, text) + answer.finished_event(6, body)
    client = connect(lambda _: httpx.Response(200, content=wire), verify_with=WORKER)
    if text == "hi\n":
        assert len(client.stream_logs("job")) == 1
        return
    with pytest.raises(ReceiptError, match="stdout"):
        client.stream_logs("job")


def test_base64_has_one_form() -> None:
    receipt = receipt_for()
    raw = base64.b64decode(receipt["signature"])
    assert receipt["signature"] == base64.b64encode(raw).decode()
    loose = receipt["signature"][:-3] + chr(ord(receipt["signature"][-3]) + 1) + "=="
    with pytest.raises(ReceiptError):
        receipts.check({**receipt, "signature": loose}, WORKER)


def test_results_are_plain_values() -> None:
    assert dataclasses.asdict(OutputFile("a", 1, "2")) == {
        "path": "a",
        "size_bytes": 1,
        "sha256": "2",
        "mime_type": "application/octet-stream",
    }
