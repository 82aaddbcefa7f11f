"""`sandrun keygen`: the key with which a worker signs receipts."""

from pathlib import Path

from nacl.signing import SigningKey

from sandrun_shared import keys


def make(file: Path) -> str:
    """Write a key to a file that must not exist yet; the worker id, its public half in base64.

    Raises KeyFileError.
    """
    key = SigningKey.generate()
    keys.write_new(file, keys.KeyKind.worker, bytes(key))
    return keys.text_of(bytes(key.verify_key))
