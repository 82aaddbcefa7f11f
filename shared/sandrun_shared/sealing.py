"""Seal logs and outputs for one reader, in numbered PyNaCl sealed boxes (X25519, XSalsa20-Poly1305).

Logs are lines of text, each one box in base64. Outputs are one file: a magic line, then boxes, each preceded
by its length in 4 bytes. A box holds its kind, whether it is the last, its number, and a payload, so that a
missing, repeated or moved box is detected. A box does not authenticate its sender; the receipt does.
"""

import base64
import binascii
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from sandrun_shared.outputs import MAX_INDEX_BYTES, OutputEntry, decode_first_index, decode_index

LOGS, OUTPUTS = 1, 2
OUTPUTS_NAME = "outputs.sealed"
MAGIC = b"sandrun-sealed-outputs-2\n"
FIRST_MAGIC = b"sandrun-sealed-outputs-1\n"  # its index has neither modes nor times
LOG_PAYLOAD = 45 << 10  # bytes; as a line it fits in one message
OUTPUT_PAYLOAD = 1 << 20
_HEAD = struct.Struct(">BBQ")  # kind, last, number
_RECORD = struct.Struct(">BI")  # stream, bytes
_LENGTH = struct.Struct(">I")
_SIZES = struct.Struct(">QQ")  # of the index, of the data
_BOX_BYTES = 48  # overhead of a box: an ephemeral public key and a tag
# The most that sealing up to 64 KiB of output can add, before base64: three boxes and three records.
LOG_OVERHEAD = 256


class SealError(Exception):
    """Sealed bytes cannot be opened; the text says why."""


def public_key(raw: bytes) -> PublicKey:
    """Decode a key to seal to. Raises ValueError unless it is a usable X25519 key (RFC 7748, 6.1)."""
    try:
        key = PublicKey(raw)
        SealedBox(key).encrypt(b"")  # raises for points of low order
    except CryptoError:
        raise ValueError("not a usable X25519 public key") from None
    return key


class Sealer:
    """Seals one sequence of boxes."""

    def __init__(self, key: PublicKey, kind: int) -> None:
        self._box = SealedBox(key)
        self._kind = kind
        self._number = 0

    def seal(self, payload: bytes, *, last: bool = False) -> bytes:
        """Seal the next box."""
        head = _HEAD.pack(self._kind, last, self._number)
        self._number += 1
        return self._box.encrypt(head + payload)


class LogSealer:
    """Seals what a job prints, both streams together, so that only the reader learns which is which."""

    def __init__(self, key: PublicKey) -> None:
        self._sealer = Sealer(key, LOGS)

    def lines(self, records: Iterable[tuple[int, bytes]], *, last: bool = False) -> list[bytes]:
        """Seal (stream, bytes) in order to lines of text; with `last` there is at least one."""
        payloads = [bytearray()]
        for stream, data in records:
            view = memoryview(data)
            while view:
                room = LOG_PAYLOAD - len(payloads[-1]) - _RECORD.size
                if room < 1024:
                    payloads.append(bytearray())
                    continue
                part = view[:room]
                payloads[-1] += _RECORD.pack(stream, len(part)) + part
                view = view[len(part) :]
        if not payloads[-1] and not last:
            payloads.pop()
        end = len(payloads) - 1
        return [
            base64.b64encode(self._sealer.seal(bytes(payload), last=last and number == end)) + b"\n"
            for number, payload in enumerate(payloads)
        ]


def seal_outputs(key: PublicKey, index: bytes, data: Iterable[bytes], data_bytes: int) -> Iterator[bytes]:
    """Seal outputs to one file, piece by piece. Raises EOFError if there is less data than stated."""
    sealer = Sealer(key, OUTPUTS)
    yield MAGIC
    waiting = bytearray(_SIZES.pack(len(index), data_bytes) + index)
    left = data_bytes
    pieces = iter(data)
    while left or len(waiting) > OUTPUT_PAYLOAD:
        while left and len(waiting) <= OUTPUT_PAYLOAD:
            piece = next(pieces, b"")
            if not piece:
                raise EOFError("there is less data than the index says")
            left -= len(piece)
            waiting += piece
        if len(waiting) > OUTPUT_PAYLOAD:
            yield _framed(sealer.seal(bytes(waiting[:OUTPUT_PAYLOAD])))
            del waiting[:OUTPUT_PAYLOAD]
    yield _framed(sealer.seal(bytes(waiting), last=True))


def _framed(box: bytes) -> bytes:
    return _LENGTH.pack(len(box)) + box


class _Opener:
    """Opens one sequence of boxes and checks its order."""

    def __init__(self, key: PrivateKey, kind: int) -> None:
        self._box = SealedBox(key)
        self._kind = kind
        self._number = 0
        self.ended = False

    def open(self, box: bytes) -> bytes:
        """Open the next box; returns its payload. Raises SealError."""
        try:
            message = self._box.decrypt(box)
        except CryptoError:
            raise SealError(f"box {self._number} was not sealed to this key, or it was changed") from None
        if len(message) < _HEAD.size:
            raise SealError(f"box {self._number} is too short")
        kind, last, number = _HEAD.unpack_from(message)
        if kind != self._kind:
            raise SealError(f"box {self._number} belongs to something else")
        if self.ended or number != self._number:
            raise SealError(f"box {number} came where box {self._number} was expected")
        self._number += 1
        self.ended = bool(last)
        return message[_HEAD.size :]


def open_logs(key: PrivateKey, text: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """Open logs: (stream, bytes) in the order in which they were printed, and whether they are complete.

    Raises SealError.
    """
    opener = _Opener(key, LOGS)
    records: list[tuple[int, bytes]] = []
    for line in text.split():
        try:
            box = base64.b64decode(line, validate=True)
        except binascii.Error:
            raise SealError("a line is not base64") from None
        records += _records(opener.open(box))
    return records, opener.ended


def _records(payload: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(payload):
        if len(payload) - place < _RECORD.size:
            raise SealError("a record of the logs is truncated")
        stream, size = _RECORD.unpack_from(payload, place)
        place += _RECORD.size
        if stream not in (1, 2) or size > len(payload) - place:
            raise SealError("a record of the logs is not well formed")
        yield stream, payload[place : place + size]
        place += size


class SealedOutputs:
    """A sealed file of outputs, read once, from after its magic line (MAGIC or FIRST_MAGIC)."""

    def __init__(self, key: PrivateKey, file: BinaryIO, magic: bytes = MAGIC) -> None:
        """Read the index. Raises SealError."""
        self._file = file
        self._opener = _Opener(key, OUTPUTS)
        self._waiting = bytearray()
        index_bytes, data_bytes = _SIZES.unpack(self._take(_SIZES.size))
        if index_bytes > MAX_INDEX_BYTES:
            raise SealError("the index is too large")
        decode = decode_index if magic == MAGIC else decode_first_index
        try:
            self.entries: list[OutputEntry] = decode(self._take(index_bytes), data_bytes)
        except ValueError as error:
            raise SealError(str(error)) from None

    def files(self) -> Iterator[tuple[OutputEntry, Iterator[bytes]]]:
        """Iterate over files and their bytes, which must be read before the next file. Raises SealError."""
        for entry in self.entries:
            yield entry, self._pieces(entry.size_bytes)
        if self._waiting or not self._opener.ended or self._file.read(1):
            raise SealError("the sealed file does not end where it should")

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size > 0:
            piece = self._take(min(size, OUTPUT_PAYLOAD))
            size -= len(piece)
            yield piece

    def _take(self, size: int) -> bytes:
        while len(self._waiting) < size:
            head = self._file.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                raise SealError("the sealed file is truncated")
            (length,) = _LENGTH.unpack(head)
            if length > OUTPUT_PAYLOAD + _HEAD.size + _BOX_BYTES:
                raise SealError("a box is too large")
            box = self._file.read(length)
            if len(box) < length:
                raise SealError("the sealed file is truncated")
            self._waiting += self._opener.open(box)
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken
