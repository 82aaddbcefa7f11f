"""Receipts: a worker's signed statement of one execution, which anybody can verify offline.

The signature covers a domain prefix and the statement in its canonical form (RFC 8785). All its numbers are
integers, because a number with two notations would give two receipts. The SHA-256 of the index, which lists
each output's path, mode, size and SHA-256 (`outputs`), binds the outputs. Receipts of version 1 have an index
without modes, whose digests the executor did not compute itself; they can still be verified.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from sandrun_shared import canonical, documents, jobs
from sandrun_shared.jobs import Limits, Outcome, Verdict
from sandrun_shared.keys import bytes_of, text_of
from sandrun_shared.outputs import OutputEntry, first_index_sha256, shown, signed_index

# No prefix begins another, so a signature of one kind is never valid for another kind.
RECEIPT_DOMAIN = b"sandrun receipt v1\0"
NONCE_DOMAIN = b"sandrun health nonce v1\0"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
VERSION: Literal[2] = 2
NONCE_PATTERN = "^[A-Za-z0-9+/=_.~-]{1,128}$"

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
PublicKey = Annotated[str, Meta(pattern="^[A-Za-z0-9+/]{43}=$")]
Word = Annotated[str, Meta(pattern="^[A-Za-z0-9_.+-]{1,64}$")]
Count = Annotated[int, Meta(ge=0, le=canonical.MAX_INTEGER)]
Mode = Annotated[str, Meta(pattern="^[0-7]{3}$")]
Nonce = Annotated[str, Meta(pattern=NONCE_PATTERN)]

_HEADER = b"sandrun-receipt:"
_encoder = msgspec.json.Encoder(order="sorted")
EMPTY_SHA256 = hashlib.sha256().hexdigest()


class ReceiptError(Exception):
    """A receipt is invalid; the text says why."""


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of signed structures; no field has a default, so that every one is present."""


class StatedLimits(Signed, frozen=True):
    """The limits that were enforced; cpu_millicores is the share of the CPU."""

    wall_microseconds: Count
    cpu_microseconds: Count | None
    memory_bytes: Count
    disk_bytes: Count
    inodes: Count
    processes: Count
    open_files: Count
    log_bytes: Count
    cpu_millicores: Count
    output_files: Count

    @classmethod
    def of(cls, limits: Limits) -> "StatedLimits":
        """Convert limits to whole numbers."""
        numbers: dict[str, Any] = jobs.stated(limits)
        return cls(**numbers)


class Statement(Signed, frozen=True):
    """One execution as its executor saw it.

    The executor measured upload, order and stdin itself; manifest_sha256 comes from the api. stdout_sha256
    and stderr_sha256 cover the kept bytes, stdout_bytes and stderr_bytes count all printed bytes. With
    encrypt_to, the digests are of the sealed bytes.
    """

    version: Literal[1, 2]
    worker_id: PublicKey
    job_hash: Digest
    manifest_sha256: Digest
    upload_sha256: Digest
    order_sha256: Digest
    stdin_sha256: Digest | None
    interpreter: Word
    environment: Word
    warm: bool
    encrypt_to: PublicKey | None
    limits: StatedLimits
    verdict: Verdict
    exit_code: Count | None
    signal: Count | None
    finished_unix_seconds: Count
    cpu_microseconds: Count
    wall_microseconds: Count
    setup_microseconds: Count
    memory_peak_bytes: Count
    stdout_bytes: Count
    stdout_sha256: Digest
    stderr_bytes: Count
    stderr_sha256: Digest
    logs_truncated: bool
    outputs_sha256: Digest
    outputs_truncated: bool


class SignedStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A statement with its signature, as the executor sends it."""

    statement: Statement
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class ListedOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One output; if the path is not UTF-8, path_base64 holds it, and path shows it with escapes.

    mode is in octal, None in a receipt of version 1.
    """

    path: str
    size_bytes: Count
    sha256: Digest
    path_base64: str | None = None
    mode: Mode | None = None

    @classmethod
    def of(cls, entry: OutputEntry) -> "ListedOutput":
        """Convert an entry of the index."""
        raw = entry.path.encode("utf-8", "surrogateescape")
        return cls.of_file(raw, entry.size_bytes, entry.sha256_hex, entry.mode)

    @classmethod
    def of_file(cls, raw: bytes, size_bytes: int, sha256_hex: str, mode: int | None) -> "ListedOutput":
        """Describe a file by its raw path."""
        path = shown(raw)
        encoded = None if path.encode() == raw else base64.b64encode(raw).decode()
        return cls(path, size_bytes, sha256_hex, encoded, None if mode is None else f"{mode:03o}")

    def raw_path(self) -> bytes:
        """Decode the raw path. Raises ReceiptError if the two forms differ."""
        if self.path_base64 is None:
            try:
                return self.path.encode()
            except UnicodeEncodeError:
                raise ReceiptError("a path among the outputs is not text") from None
        try:
            raw = base64.b64decode(self.path_base64)
        except ValueError:
            raise ReceiptError("a path among the outputs is not base64") from None
        path = shown(raw)
        if base64.b64encode(raw).decode() != self.path_base64 or path != self.path or path.encode() == raw:
            raise ReceiptError("a path among the outputs has two forms that differ")
        return raw


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The receipt that clients get; outputs is None where the list does not fit, as in a header."""

    statement: Statement
    signature: str
    outputs: tuple[ListedOutput, ...] | None = None


def statement_of(
    outcome: Outcome,
    limits: Limits,
    *,
    worker_id: str,
    manifest_sha256: str,
    upload_sha256: str,
    encrypt_to: bytes | None,
    **rest: Any,
) -> Statement:
    """Build a statement; rest are the fields that the other arguments do not determine."""
    return Statement(
        version=VERSION,
        worker_id=worker_id,
        job_hash=job_hash(manifest_sha256, upload_sha256),
        manifest_sha256=manifest_sha256,
        upload_sha256=upload_sha256,
        encrypt_to=None if encrypt_to is None else text_of(encrypt_to),
        limits=StatedLimits.of(limits),
        verdict=outcome.verdict,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        cpu_microseconds=_micro(outcome.cpu_seconds),
        wall_microseconds=_micro(outcome.wall_seconds),
        setup_microseconds=_micro(outcome.setup_seconds),
        memory_peak_bytes=outcome.memory_peak_bytes,
        stdout_bytes=outcome.stdout_bytes,
        stderr_bytes=outcome.stderr_bytes,
        logs_truncated=outcome.logs_truncated,
        outputs_truncated=outcome.outputs_truncated,
        **rest,
    )


def job_hash(manifest_sha256: str, upload_sha256: str) -> str:
    """Hash the canonical form of both digests (SHA-256 in hex); equal jobs have equal hashes."""
    document = {"manifest_sha256": manifest_sha256, "upload_sha256": upload_sha256}
    return hashlib.sha256(canonical.encode(document)).hexdigest()


def index_sha256(outputs: Iterable[ListedOutput], version: int = VERSION) -> str:
    """Hash what a receipt of that version binds of these outputs (SHA-256).

    Raises ReceiptError for an output that a receipt cannot hold.
    """
    listed = tuple(outputs)
    if version == 1:
        return first_index_sha256((item.raw_path(), item.size_bytes, item.sha256) for item in listed)
    if any(item.mode is None for item in listed):
        raise ReceiptError("an output has no mode")
    files = [(item.raw_path(), int(item.mode or "0", 8), item.size_bytes, item.sha256) for item in listed]
    return hashlib.sha256(signed_index(files)).hexdigest()


def signed_bytes(statement: Statement) -> bytes:
    """Encode what the signature of a statement covers."""
    # For integers and strings without escapes, RFC 8785 only requires sorted keys. `canonical.encode`, which
    # handles everything, is fifty times slower.
    return RECEIPT_DOMAIN + _encoder.encode(statement)


def sign(key: SigningKey, statement: Statement) -> SignedStatement:
    """Sign a statement (Ed25519, RFC 8032)."""
    return SignedStatement(statement, key.sign(signed_bytes(statement)).signature)


def verify(receipt: Receipt) -> None:
    """Check the signature and that the parts belong together. Raises ReceiptError.

    This proves that the worker named in the receipt signed it; the caller decides whether to trust that
    worker.
    """
    statement = receipt.statement
    _check_signature(statement.worker_id, signed_bytes(statement), receipt.signature)
    if statement.job_hash != job_hash(statement.manifest_sha256, statement.upload_sha256):
        raise ReceiptError("the job hash is not that of the manifest and the upload")
    if receipt.outputs is None:
        return
    if index_sha256(receipt.outputs, statement.version) != statement.outputs_sha256:
        raise ReceiptError("the list of outputs is not the one that was signed")


def parse(data: bytes) -> Receipt:
    """Parse the receipt in a JSON document, such as a job's whole status, or in response headers.

    Raises ReceiptError, also for duplicate names, which readers would interpret differently.
    """
    text = data.strip()
    try:
        if not text.startswith(b"{"):
            named = [line for line in text.splitlines() if line.lower().startswith(_HEADER)]
            text = base64.b64decode(named[0][len(_HEADER) :].strip() if named else text, validate=True)
        document = json.loads(text, object_pairs_hook=documents.members)
    except (ValueError, RecursionError) as error:
        raise ReceiptError(f"this is no receipt: {error}") from None
    if isinstance(document, dict) and "receipt" in document:
        document = document["receipt"]
    return read(document)


def read(document: Any) -> Receipt:
    """Convert a decoded JSON document to a receipt. Raises ReceiptError."""
    try:
        return msgspec.convert(document, Receipt)
    except (ValueError, RecursionError) as error:
        # A statement of a later version may differ in any field, so report the version instead.
        version = _version_of(document)
        if isinstance(version, int) and version > VERSION:
            raise ReceiptError(
                f"the receipt has version {version}, and {VERSION} is the last one known here"
            ) from None
        raise ReceiptError(f"this is no receipt: {error}") from None


def _version_of(document: Any) -> Any:
    statement = document.get("statement") if isinstance(document, dict) else None
    return statement.get("version") if isinstance(statement, dict) else None


def sign_nonce(key: SigningKey, nonce: str) -> bytes:
    """Sign a nonce, which proves the worker's identity."""
    return key.sign(NONCE_DOMAIN + nonce.encode()).signature


def verify_nonce(worker_id: str, nonce: str, signature: str) -> None:
    """Check the answer of `GET /health?nonce=`. Raises ReceiptError."""
    _check_signature(worker_id, NONCE_DOMAIN + nonce.encode(), signature)


def _check_signature(worker_id: str, message: bytes, signature: str) -> None:
    try:
        raw = bytes_of(signature, SIGNATURE_BYTES)
    except ValueError as error:
        raise ReceiptError(f"the signature is {error}") from None
    try:
        VerifyKey(bytes_of(worker_id, KEY_BYTES)).verify(message, raw)
    except ValueError as error:
        raise ReceiptError(f"the worker id is {error}") from None
    except BadSignatureError:
        raise ReceiptError("the signature does not hold: something in it was changed") from None


def _micro(seconds: float) -> int:
    return round(max(seconds, 0.0) * 1e6)
