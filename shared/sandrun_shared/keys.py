"""Secret keys as files: one line with the key's kind and its 32 bytes, readable only by the owner."""

import base64
import binascii
import enum
import os
import stat
from pathlib import Path

SEED_BYTES = 32
MODE = 0o600
_MAX_FILE = 4096


class KeyFileError(Exception):
    """A key file cannot be used or made; the text names it and the remedy."""


class KeyKind(enum.StrEnum):
    """What a key is for; the file says which."""

    worker = "sandrun-worker-key-ed25519"
    encryption = "sandrun-encryption-key-x25519"


def text_of(key: bytes) -> str:
    """Encode a public key or signature: standard base64 with padding."""
    return base64.b64encode(key).decode()


def bytes_of(text: str, size: int) -> bytes:
    """Decode such a text. Raises ValueError unless it is the canonical encoding of `size` bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    # Decoders ignore base64's last bits, so several texts have the same bytes; we accept only ours.
    if text_of(data) != text:
        raise ValueError("not base64 in its one canonical form")
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")
    return data


def write_new(path: Path, kind: KeyKind, seed: bytes) -> None:
    """Write a key to a file that must not exist yet, readable by its owner alone. Raises KeyFileError."""
    mask = os.umask(0o077)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    except FileExistsError:
        raise KeyFileError(f"{path} exists: a key is never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be made: {error.strerror}") from None
    finally:
        os.umask(mask)
    with os.fdopen(fd, "w") as file:
        file.write(f"{kind.value} {text_of(seed)}\n")
        file.flush()
        os.fsync(fd)


def read(path: Path, kind: KeyKind) -> bytes:
    """Read the 32 bytes of a key file. Raises KeyFileError, also if others can read the file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be read: {error.strerror}") from None
    try:
        _check(path, os.fstat(fd))
        data = os.read(fd, _MAX_FILE)
    finally:
        os.close(fd)
    name, _, text = data.decode("ascii", "replace").strip().partition(" ")
    if name != kind.value:
        option = " --encryption" if kind is KeyKind.encryption else ""
        raise KeyFileError(f"{path} is not a {kind.value}: make one with `sandrun keygen{option} FILE`")
    try:
        return bytes_of(text, SEED_BYTES)
    except ValueError as error:
        raise KeyFileError(f"the key in {path} is damaged: {error}") from None


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{path} is not a file")
    if status.st_uid not in (0, os.geteuid()):
        raise KeyFileError(f"the key file {path} belongs to another user: chown {os.geteuid()} {path}")
    if status.st_mode & 0o077:
        raise KeyFileError(f"the key file {path} can be read or changed by others: chmod 600 {path}")
