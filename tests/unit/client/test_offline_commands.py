"""`sandrun verify`, `decrypt` and `keygen`, as they are typed."""

import io
import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from sandrun_client.cli.main import main
from sandrun_client.cli.terminal import OWN_FAILURE
from sandrun_shared import keys, sealing
from sandrun_shared.keys import KeyKind
from sandrun_shared.outputs import signed_index, times

READER = PrivateKey(b"\5" * 32)


def sandrun(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """READER's key file."""
    path = tmp_path / "my.key"
    keys.write_new(path, KeyKind.encryption, bytes(READER))
    return path


def sealed(files: dict[str, bytes]) -> bytes:
    listed = [(path.encode(), 0o644, len(data), sha256(data).hexdigest()) for path, data in files.items()]
    index = signed_index(listed) + times([0] * len(files))
    data = b"".join(files.values())
    return b"".join(sealing.seal_outputs(READER.public_key, index, [data], len(data)))


def test_keygen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key"
    assert sandrun("keygen", "--encryption", path) == 0
    public = keys.bytes_of(capsys.readouterr().out.strip(), 32)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert bytes(PrivateKey(keys.read(path, KeyKind.encryption)).public_key) == public
    before = path.read_bytes()
    assert sandrun("keygen", path, "--encryption") == OWN_FAILURE
    assert "never overwritten" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["key", "--encryption"])
def test_keygen_of_a_worker_is_the_servers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sandrun("keygen", "--", name) == 0
    public = keys.bytes_of(capsys.readouterr().out.strip(), 32)
    assert bytes(SigningKey(keys.read(Path(name), KeyKind.worker)).verify_key) == public


def test_keygen_where_nothing_can_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sandrun("keygen", "--encryption", tmp_path / "no" / "key") == OWN_FAILURE
    assert "cannot be made" in capsys.readouterr().err


def first_sealed(files: dict[str, bytes]) -> bytes:
    """As the first version sealed outputs, whose index tells neither modes nor times."""
    listed = [(path.encode(), len(data), sha256(data).hexdigest()) for path, data in files.items()]
    index = b"".join(b"%b\0%d\0%b\0" % (path, size, digest.encode()) for path, size, digest in listed)
    data = b"".join(files.values())
    boxes = b"".join(sealing.seal_outputs(READER.public_key, index, [data], len(data)))
    return sealing.FIRST_MAGIC + boxes.removeprefix(sealing.MAGIC)


@pytest.mark.parametrize("seal", [sealed, first_sealed])
@pytest.mark.parametrize("path", ["../x", "/tmp/x", "a/../../x", "a//b", "./a", "", "a/", "."])
def test_decrypt_writes_nowhere_else(
    tmp_path: Path,
    key: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
    seal: Callable[[dict[str, bytes]], bytes],
) -> None:
    (tmp_path / "outputs.sealed").write_bytes(seal({"good": b"1"}))
    assert sandrun("decrypt", key, tmp_path / "outputs.sealed", "-o", tmp_path / "good") == 0
    (tmp_path / "outputs.sealed").write_bytes(seal({"good": b"1", path: b"2"}))
    before = sorted(tmp_path.rglob("*"))
    assert sandrun("decrypt", key, tmp_path / "outputs.sealed", "-o", tmp_path / "new") == 1
    assert "names no output" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_decrypt_never_writes_into_what_is_there(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs.sealed").write_bytes(sealed({"etc/passwd": b"1"}))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "etc").symlink_to("/etc")
    assert sandrun("decrypt", key, tmp_path / "outputs.sealed", "-o", tmp_path / "new") == 1
    assert "exists" in capsys.readouterr().err


def test_decrypt_shows_names_that_would_speak_to_the_terminal(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs.sealed").write_bytes(sealed({"a\x1b[2J": b"1"}))
    assert sandrun("decrypt", key, tmp_path / "outputs.sealed", "-o", tmp_path / "new") == 0
    assert capsys.readouterr().out == "a\\x1b[2J\n"
    assert os.listdir(tmp_path / "new") == ["a\x1b[2J"]


def test_decrypt_reads_standard_input(
    key: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = sealing.LogSealer(READER.public_key).lines([(1, b"out\xff"), (2, b"err")], last=True)
    for text in (b"".join(lines), json.dumps({"stdout": b"".join(lines).decode(), "stderr": ""}).encode()):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert sandrun("decrypt", key, "-") == 0
        assert capfdbinary.readouterr() == (b"out\xff", b"err")


@pytest.mark.parametrize("text", [b"hello world", b"{}", b'{"stdout": 1}', b"\xff\xfe", b"{" * 100_000])
def test_decrypt_what_was_never_sealed(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    (tmp_path / "file").write_bytes(text)
    assert sandrun("decrypt", key, tmp_path / "file") == 1
    assert capsys.readouterr().err.startswith("sandrun: ")


def test_decrypt_says_when_the_end_is_missing(
    tmp_path: Path, key: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = sealing.LogSealer(READER.public_key).lines([(1, b"begin")])
    (tmp_path / "logs").write_bytes(b"".join(lines))
    assert sandrun("decrypt", key, tmp_path / "logs") == 1
    said = capfd.readouterr()
    assert said.out == "begin"
    assert "end before the job did" in said.err


def test_a_file_that_is_not_there(tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sandrun("decrypt", key, tmp_path / "none") == OWN_FAILURE
    assert "none" in capsys.readouterr().err
    assert sandrun("decrypt", tmp_path / "no.key", tmp_path / "none") == OWN_FAILURE
    assert "cannot be read" in capsys.readouterr().err
    assert sandrun("verify", tmp_path / "none") == 1
    assert "DIFFERS" in capsys.readouterr().out


@pytest.mark.parametrize("text", [b"", b"{}", b"hello", b'{"receipt": null}'])
def test_verify_what_is_no_receipt(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes) -> None:
    (tmp_path / "receipt").write_bytes(text)
    assert sandrun("verify", tmp_path / "receipt") == 1
    assert "no receipt" in capsys.readouterr().out


def test_verify_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "receipt").write_bytes(b"{}")
    assert sandrun("verify", "--json", tmp_path / "receipt") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["holds"] is False
    assert [check["holds"] for check in document["checks"]] == [False]
    assert "no receipt" in document["checks"][0]["difference"]
