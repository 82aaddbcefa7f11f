"""Orders: the parts of a job that a client wrote, as NUL-terminated bytes that only the sandbox parses.

The api writes them, the executor passes them on in a memfd that it never parses, and
`sandrun_sandbox/orders.py` reads them inside the sandbox with the standard library only. Arguments, names and
patterns cannot hold a NUL (execve(2), path_resolution(7)).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

SIZE_DIGITS = 12  # fixed, so that a bundled file's size can be written after the file


@dataclass(frozen=True)
class Order:
    """What to run; paths are relative to the work directory, env is added to the sandbox's variables."""

    entrypoint: str
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ValueError("a NUL byte cannot be passed to a program")
    return data


def encode_order(order: Order) -> bytes:
    """Encode an order: entrypoint, then three counted lists, env sorted. Raises ValueError on a NUL."""
    fields = [_text(order.entrypoint)]
    lists = (order.args, [f"{key}={value}" for key, value in sorted(order.env.items())], order.outputs)
    for items in lists:
        fields.append(str(len(items)).encode())
        fields += [_text(item) for item in items]
    return b"\0".join(fields) + b"\0"


def encode_bundle(files: dict[str, bytes]) -> bytes:
    """Encode plain files: for each, path NUL size NUL and the bytes. Raises ValueError on a NUL."""
    return b"".join(bundle_head(path, len(data)) + data for path, data in files.items())


def bundle_sha256(files: Iterable[tuple[str, bytes]]) -> str:
    """Hash the bundle of these files, in this order (SHA-256 in hex). Raises ValueError on a NUL."""
    digest = hashlib.sha256()
    for path, data in files:
        digest.update(bundle_head(path, len(data)))
        digest.update(data)
    return digest.hexdigest()


def bundle_head(path: str, size: int) -> bytes:
    """Encode a bundled file's head, of the same length for any size. Raises ValueError on a NUL."""
    return b"%b\0%0*d\0" % (_text(path), SIZE_DIGITS, size)
