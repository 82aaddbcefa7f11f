"""`sandrun keygen`: a key that signs receipts, or a pair to which results are sealed."""

import argparse
from pathlib import Path

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from sandrun_shared import keys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("file", type=Path, help="where the secret key goes; it must not exist yet")
    parser.add_argument(
        "--encryption",
        action="store_true",
        help="make a key pair to encrypt to, and print its public key for `encrypt_to`",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the key and print the public one in base64. Raises KeyFileError."""
    if arguments.encryption:
        pair = PrivateKey.generate()
        secret, public, kind = bytes(pair), bytes(pair.public_key), keys.KeyKind.encryption
    else:
        key = SigningKey.generate()
        secret, public, kind = bytes(key), bytes(key.verify_key), keys.KeyKind.worker
    keys.write_new(arguments.file, kind, secret)
    print(keys.text_of(public))
    return 0
