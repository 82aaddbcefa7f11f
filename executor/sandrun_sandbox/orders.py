"""Read the client's order inside the sandbox.

The writer is `sandrun_shared/orders.py`, which cannot be imported here.
"""

from __future__ import annotations

import os


class Order:
    """What to run: an entrypoint beneath the work directory, its arguments, variables and output patterns."""

    __slots__ = ("args", "entrypoint", "env", "outputs")

    def __init__(self, entrypoint: str, args: list[str], env: dict[str, str], outputs: list[str]) -> None:
        self.entrypoint = entrypoint
        self.args = args
        self.env = env
        self.outputs = outputs


def read_all(fd: int) -> bytes:
    """Read a whole memfd without using or moving the descriptor's offset."""
    chunks: list[bytes] = []
    offset = 0
    while True:
        chunk = os.pread(fd, max(os.fstat(fd).st_size - offset, 1), offset)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        offset += len(chunk)


def _take_list(fields: list[bytes], start: int) -> tuple[list[bytes], int]:
    if start >= len(fields) or not fields[start].isdigit() or len(fields[start]) > 9:
        raise ValueError("a list of the order is not well formed")
    end = start + 1 + int(fields[start])
    if end > len(fields):
        raise ValueError("the order is truncated")
    return fields[start + 1 : end], end


def decode_order(data: bytes) -> Order:
    """Decode what `sandrun_shared.orders.encode_order` wrote. Raises ValueError on anything else.

    Text for the system is decoded as Python decodes it (os.fsdecode), so that exec gives back the same bytes;
    output patterns are UTF-8 whatever the locale, as the collector compares them.
    """
    fields = data.split(b"\0")
    if fields.pop() != b"" or not fields:
        raise ValueError("the order is truncated")
    args, place = _take_list(fields, 1)
    settings, place = _take_list(fields, place)
    outputs, place = _take_list(fields, place)
    if place != len(fields):
        raise ValueError("the order has trailing bytes")
    env = {}
    for setting in settings:
        key, equals, value = setting.partition(b"=")
        if not key or not equals:
            raise ValueError("an environment entry has no name")
        env[os.fsdecode(key)] = os.fsdecode(value)
    return Order(
        os.fsdecode(fields[0]),
        [os.fsdecode(arg) for arg in args],
        env,
        [pattern.decode("utf-8", "surrogateescape") for pattern in outputs],
    )
