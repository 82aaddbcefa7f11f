"""Key files: readable by the owner only, never overwriting a file, refused if others can read them."""

import os
from pathlib import Path

import pytest

from sandrun_shared.keys import KeyFileError, KeyKind, bytes_of, read, text_of, write_new

SEED = bytes(range(32))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    mask = os.umask(0)  # the strictest may not be what the caller has
    try:
        write_new(path, KeyKind.worker, SEED)
        assert os.umask(0) == 0
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert read(path, KeyKind.worker) == SEED
    with pytest.raises(KeyFileError, match=r"not a sandrun-encryption-key-x25519.*--encryption"):
        read(path, KeyKind.encryption)


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_nothing_is_overwritten(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "key", tmp_path / "other"
    if kind != "dangling":
        other.write_text("mine")
    if kind == "file":
        other.rename(path)
    else:
        path.symlink_to(other)
    with pytest.raises(KeyFileError, match="never overwritten"):
        write_new(path, KeyKind.worker, SEED)
    assert not other.exists() if kind != "link" else other.read_text() == "mine"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o777, 0o601])
def test_a_key_others_can_reach_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_new(path, KeyKind.worker, SEED)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        read(path, KeyKind.worker)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_new(path, KeyKind.worker, SEED)
    os.chown(path, 65534, -1)
    with pytest.raises(KeyFileError, match="another user"):
        read(path, KeyKind.worker)


@pytest.mark.parametrize(
    "text", ["", "sandrun-worker-key-ed25519", "sandrun-worker-key-ed25519 AAAA", "\xff"]
)
def test_damaged_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=str(path)):
        read(path, KeyKind.worker)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: None])
def test_what_is_no_file(tmp_path: Path, make: "object") -> None:
    path = tmp_path / "key"
    make(path)  # type: ignore[operator]
    with pytest.raises(KeyFileError):
        read(path, KeyKind.worker)


@pytest.mark.parametrize("text", ["", "AAA", "AAAA", "YQ", "YR==", "YQ==\n", " YQ==", "Y_=="])
def test_only_one_text_for_the_same_bytes(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|bytes"):
        bytes_of(text, 1)
    assert bytes_of(text_of(b"a"), 1) == b"a"
