"""`sandrun keygen`: the key with which a worker signs receipts."""

import argparse
from pathlib import Path

from nacl.signing import SigningKey

from sandrun_shared import keys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("file", type=Path, help="where the secret key goes; it must not exist yet")


def run(arguments: argparse.Namespace) -> int:
    """Write the key and print the worker id, the public key in base64. Raises KeyFileError."""
    key = SigningKey.generate()
    keys.write_new(arguments.file, keys.KeyKind.worker, bytes(key))
    print(keys.text_of(bytes(key.verify_key)))
    return 0
