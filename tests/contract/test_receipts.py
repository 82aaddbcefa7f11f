"""Receipts and sealed results, whichever executor is behind the api."""

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import websockets
from nacl.public import PrivateKey

from sandrun_client.cli.main import main
from sandrun_shared import keys, receipts, sealing
from sandrun_shared.paths import shown
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live

pytestmark = pytest.mark.anyio
NONCE = "dGhpcyBpcyBmcmVzaA=="


async def finished(live: Live, program: programs.Program, **manifest: object) -> dict[str, Any]:
    """The status of a finished job."""
    answer = await live.client.post(
        "/submit",
        files=[("files", ("main.py", program.code.encode()))],
        data={"manifest": json.dumps({"entrypoint": "main.py", **manifest})},
    )
    assert answer.status_code == 200, answer.text
    status = await live.client.get(answer.headers["location"], params={"wait": 30})
    body: dict[str, Any] = status.json()
    assert body["verdict"] is not None
    return body


def sandrun(*arguments: object) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


async def test_status_and_downloads_carry_a_receipt_that_verifies(
    live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = {"args": ["a", "b"], "env": {"Z": "1", "A": "2"}, "stdin": "typed", "timeout": 20.5}
    status = await finished(live, programs.FILES, **manifest)
    job_id, receipt = status["job_id"], status["receipt"]
    worker = status["worker_metadata"]["worker_id"]
    assert status["worker_metadata"] == {"worker_id": worker, "signature": receipt["signature"]}
    statement = receipt["statement"]
    assert statement["worker_id"] == worker == (await live.client.get("/health")).json()["worker_id"]
    assert statement["job_hash"] == status["job_hash"]
    assert (statement["verdict"], statement["exit_code"]) == ("ok", 0)
    assert statement["stdout_sha256"] == hashlib.sha256(programs.FILES.stream(1)).hexdigest()
    assert statement["limits"]["wall_microseconds"] == 20_500_000
    listed = (await live.client.get(f"/outputs/{job_id}")).json()
    assert (listed["truncated"], listed["left_out"], status["left_out"]) == (False, [], [])
    one = await live.client.get(f"/download/{job_id}/results/data.csv")
    archive = await live.client.get(f"/download/{job_id}")
    assert one.headers["sandrun-receipt"] == archive.headers["sandrun-receipt"]
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as packed:
        members = [(item.name, f"{item.mode:03o}", item.mtime) for item in packed]
    assert members == [
        (item["path"], item["mode"], item["modified_unix_seconds"]) for item in listed["details"]
    ]
    assert all(modified > 1_600_000_000 for _, _, modified in members)

    (tmp_path / "status.json").write_text(json.dumps(status, indent=2))
    (tmp_path / "header").write_text(
        f"HTTP/1.1 200 OK\r\ndate: today\r\nSandrun-Receipt: {archive.headers['sandrun-receipt']}\r\n"
    )
    (tmp_path / "out.tar.gz").write_bytes(archive.content)
    (tmp_path / "stdout").write_bytes(programs.FILES.stream(1))
    (tmp_path / "main.py").write_text(programs.FILES.code)
    (tmp_path / "job.json").write_text(json.dumps({"entrypoint": "main.py", **manifest}))
    (tmp_path / "files" / "results").mkdir(parents=True)
    for path, data in programs.FILES.files.items():
        (tmp_path / "files" / path).write_bytes(data)
    everything: list[object] = [
        *("--worker", worker, "--stdout", tmp_path / "stdout", "--upload", tmp_path / "main.py"),
        *("--manifest", tmp_path / "job.json"),
    ]
    files = tmp_path / "out.tar.gz", tmp_path / "files"
    for form in ("status.json", "header"):
        assert sandrun("verify", *everything, tmp_path / form, *files) == 0, capsys.readouterr().out
    capsys.readouterr()

    changed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive.content)) as old,
        tarfile.open(fileobj=changed, mode="w:gz") as new,
    ):
        first, *rest = old.getmembers()
        first.mode ^= 0o100
        new.addfile(first, old.extractfile(first))
    (tmp_path / "changed.tar.gz").write_bytes(changed.getvalue())
    assert sandrun("verify", tmp_path / "status.json", tmp_path / "changed.tar.gz") == 1
    told = capsys.readouterr().out
    assert f"{shown(first.name)}: it has mode" in told
    assert all(f"{shown(member.name)}: it is missing" in told for member in rest)

    (tmp_path / "files" / "results" / "data.csv").write_bytes(b"a,b\n1,3\n")
    (tmp_path / "files" / "more").write_bytes(b"")
    assert sandrun("verify", *everything, tmp_path / "status.json", *files) == 1
    differing = [line for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERS")]
    assert len(differing) == 2
    assert "data.csv" in differing[0] + differing[1]
    for option, name in (("--stdout", "main.py"), ("--upload", "stdout"), ("--worker", "header")):
        assert sandrun("verify", tmp_path / "status.json", option, tmp_path / name) == 1
    (tmp_path / "job.json").write_text(json.dumps({"entrypoint": "main.py", **manifest, "args": ["a"]}))
    assert sandrun("verify", tmp_path / "status.json", "--manifest", tmp_path / "job.json") == 1


async def test_a_failure_is_signed_too(live: Live) -> None:
    status = await finished(live, programs.FAILS)
    receipt = receipts.parse(json.dumps(status).encode())
    receipts.verify(receipt)
    assert (receipt.statement.verdict, receipt.statement.exit_code) == ("nonzero_exit", 3)
    assert receipt.statement.stderr_sha256 == hashlib.sha256(b"err\n").hexdigest()
    assert receipt.outputs == ()


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
async def test_run_gives_the_receipt_with_its_answer(live: Live, kind: str) -> None:
    if kind == "text/plain":
        answer = await live.client.post(
            "/run", content=programs.HELLO.code, headers={"content-type": "text/plain"}
        )
        receipt = receipts.parse(answer.headers["sandrun-receipt"].encode())
    else:
        answer = await live.client.post("/run", json={"code": programs.HELLO.code})
        receipt = receipts.parse(answer.content)
    receipts.verify(receipt)
    assert receipt.statement.stdout_sha256 == hashlib.sha256(b"hello\n").hexdigest()


async def test_the_same_files_have_the_same_hash_however_they_came(live: Live) -> None:
    submitted = await finished(live, programs.HELLO)
    ran = (await live.client.post("/run", json={"code": programs.HELLO.code})).json()
    uploads = {body["receipt"]["statement"]["upload_sha256"] for body in (submitted, ran)}
    assert len(uploads) == 1


async def test_health_proves_who_answers(live: Live) -> None:
    body = (await live.client.get("/health", params={"nonce": NONCE})).json()
    receipts.verify_nonce(body["worker_id"], NONCE, body["signature"])
    with pytest.raises(receipts.ReceiptError):
        receipts.verify_nonce(body["worker_id"], NONCE + "x", body["signature"])
    assert "signature" not in (await live.client.get("/health")).json()


@pytest.mark.parametrize("nonce", ["", "a" * 129, "two words", "n\u00f6", "line\n", '{"a":1}'])
async def test_bad_nonce(live: Live, nonce: str) -> None:
    answer = await live.client.get("/health", params={"nonce": nonce})
    assert answer.status_code == 400
    assert "nonce" in answer.json()["reason"]


async def test_a_worker_without_a_key_says_so(live_fake: Live, fake: FakeExecutor) -> None:
    fake.key = None
    body = (await live_fake.client.get("/health", params={"nonce": NONCE})).json()
    assert (body["worker_id"], body["signature"]) == ("", None)
    status = await finished(live_fake, programs.FILES)
    assert status["receipt"] is None
    assert status["worker_metadata"] == {"worker_id": "", "signature": None}
    assert "sandrun-receipt" not in (await live_fake.client.get(f"/download/{status['job_id']}")).headers


async def test_encrypted_results_are_opened_by_their_owner_alone(
    live: Live, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    key = tmp_path / "my.key"
    assert sandrun("keygen", "--encryption", key) == 0
    public = capfdbinary.readouterr().out.decode().strip()
    status = await finished(live, programs.FILES, encrypt_to=public)
    job_id = status["job_id"]
    assert status["encrypt_to"] == status["receipt"]["statement"]["encrypt_to"] == public
    assert list(status["output_files"]) == [sealing.OUTPUTS_NAME]
    logs = await live.client.get(f"/logs/{job_id}")
    text = await live.client.get(f"/logs/{job_id}", headers={"accept": "text/plain"})
    assert (logs.json()["stdout"].encode(), logs.json()["stderr"]) == (text.content, "")
    async with websockets.connect(f"ws://127.0.0.1:{live.port}/stream/{job_id}") as stream:
        assert "".join([str(message) async for message in stream]).encode() == text.content
    sealed = (await live.client.get(f"/download/{job_id}/{sealing.OUTPUTS_NAME}")).content
    for plain in (b"done", b"data.csv", b"a,b"):
        assert plain not in text.content + base64.b64decode(text.content) + sealed

    for name, data in (("logs.json", logs.content), ("logs", text.content), ("outputs.sealed", sealed)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "status.json").write_text(json.dumps(status))
    checked = (tmp_path / "status.json", tmp_path / "outputs.sealed")
    assert sandrun("verify", "--stdout", tmp_path / "logs", *checked) == 0
    capfdbinary.readouterr()
    for name in ("logs.json", "logs"):
        assert sandrun("decrypt", key, tmp_path / name) == 0
        assert capfdbinary.readouterr().out == b"done\n"
    assert sandrun("decrypt", key, tmp_path / "outputs.sealed", "-o", tmp_path / "opened") == 0
    for path, data in programs.FILES.files.items():
        assert (tmp_path / "opened" / path).read_bytes() == data
    stranger = tmp_path / "other.key"
    assert sandrun("keygen", "--encryption", stranger) == 0
    assert sandrun("decrypt", stranger, tmp_path / "logs") == 1
    assert sandrun("decrypt", stranger, tmp_path / "outputs.sealed", "-o", tmp_path / "none") == 1
    assert not (tmp_path / "none").exists()


async def test_sealed_output_is_live(live: Live) -> None:
    pair = PrivateKey.generate()
    manifest = {"entrypoint": "main.py", "encrypt_to": keys.text_of(bytes(pair.public_key))}
    answer = await live.client.post(
        "/submit",
        files=[("files", ("main.py", programs.WAITS.code.encode()))],
        data={"manifest": json.dumps(manifest)},
    )
    job_id = answer.json()["job_id"]
    async with websockets.connect(f"ws://127.0.0.1:{live.port}/stream/{job_id}") as stream:
        records, complete = sealing.open_logs(pair, str(await stream.recv()).encode())
        assert (records, complete) == ([(1, b"waiting\n")], False)
        assert (await live.client.delete(f"/jobs/{job_id}")).status_code == 204


async def test_both_streams_keep_their_order_in_sealed_logs(live: Live) -> None:
    pair = PrivateKey.generate()
    status = await finished(live, programs.FAILS, encrypt_to=keys.text_of(bytes(pair.public_key)))
    logs = (await live.client.get(f"/logs/{status['job_id']}")).json()
    records, complete = sealing.open_logs(pair, logs["stdout"].encode())
    assert complete
    assert b"".join(data for stream, data in records if stream == 1) == b"out\n"
    assert b"".join(data for stream, data in records if stream == 2) == b"err\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AAAA",
        "not base64",
        keys.text_of(bytes(31)),
        keys.text_of(bytes(32)),  # a point of low order: everybody could open what is sealed to it
        keys.text_of(b"\1" + bytes(31)),
        keys.text_of(b"\7" * 32).rstrip("="),
        keys.text_of(b"\7" * 32)[:-2] + "d=",  # the same bytes, spelt otherwise
    ],
)
async def test_bad_encryption_keys(live_fake: Live, text: str) -> None:
    answer = await live_fake.client.post(
        "/submit",
        files=[("files", ("main.py", b"pass"))],
        data={"manifest": json.dumps({"entrypoint": "main.py", "encrypt_to": text})},
    )
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/encrypt_to"


async def test_long_list_of_outputs_is_left_out_of_headers(live: Live, tmp_path: Path) -> None:
    names = [f"file-{number:03}-with-a-rather-long-name" for number in range(60)]
    code = "for name in " + repr(names) + ":\n    open(name, 'w').write(name)\n"
    status = await finished(live, programs.Program(code))
    answer = await live.client.get(f"/download/{status['job_id']}")
    assert len(answer.headers["sandrun-receipt"]) <= 3072
    receipts.verify(receipts.parse(answer.headers["sandrun-receipt"].encode()))
    if not status["output_files"]:
        return  # the fake executor runs nothing
    (tmp_path / "out.tar.gz").write_bytes(answer.content)
    (tmp_path / "receipt").write_text(answer.headers["sandrun-receipt"])
    assert receipts.parse((tmp_path / "receipt").read_bytes()).outputs is None
    assert sandrun("verify", tmp_path / "receipt", tmp_path / "out.tar.gz") == 0
