"""Checking what a worker signed, with nothing but what was sent and what came back.

A receipt is a statement and its Ed25519 signature (RFC 8032) over a domain prefix and the statement's
canonical form (RFC 8785); docs/receipts.md has the format. Needs PyNaCl, the extra `verify`.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from sandrun_client.errors import ReceiptError
from sandrun_client.models import Logs, OutputFile, Status

RECEIPT_DOMAIN = b"sandrun receipt v1\0"
NONCE_DOMAIN = b"sandrun health nonce v1\0"
VERSIONS = (1, 2)

# Fields of a manifest that count only when they differ from this.
_DEFAULTS: dict[str, Any] = {
    "interpreter": None,
    "environment": "default",
    "args": [],
    "env": {},
    "stdin": None,
    "outputs": [],
    "requirements": None,
    "timeout": None,
    "memory_mb": None,
    "cpu_seconds": None,
    "gpu": None,
    "warm": True,
    "buffered": None,
    "priority": "normal",
    "encrypt_to": None,
}


def check(receipt: Any, worker_id: str) -> Mapping[str, Any]:
    """The statement of a receipt that this worker signed. Raises ReceiptError."""
    if not isinstance(receipt, dict) or not isinstance(statement := receipt.get("statement"), dict):
        raise ReceiptError("There is no receipt: this worker signs nothing, or the job never reached it.")
    version = statement.get("version")
    if version not in VERSIONS or isinstance(version, bool):
        raise ReceiptError(f"The receipt's version is {version}; {VERSIONS[-1]} is the last one known here.")
    if statement.get("worker_id") != worker_id:
        raise ReceiptError(f"The receipt is of the worker {statement.get('worker_id')}, not of {worker_id}.")
    _verify(worker_id, RECEIPT_DOMAIN + canonical(statement), receipt.get("signature"), "receipt")
    hashes = {name: statement.get(name) for name in ("manifest_sha256", "upload_sha256")}
    if statement.get("job_hash") != hashlib.sha256(canonical(hashes)).hexdigest():
        raise ReceiptError("The receipt's job hash is not that of its manifest and upload.")
    listed = receipt.get("outputs")
    if listed is not None and _index_sha256(listed, version) != statement.get("outputs_sha256"):
        raise ReceiptError("The receipt's list of outputs is not the one that was signed.")
    return statement


def check_ending(statement: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Whether a status or a result says what the statement says. Raises ReceiptError."""
    for name in ("verdict", "exit_code", "signal"):
        if statement.get(name) != document.get(name):
            raise ReceiptError(
                f"The server says {name} {document.get(name)}, the receipt says {statement.get(name)}."
            )


def check_status(status: Status, worker_id: str) -> Mapping[str, Any]:
    """The statement about a finished job, which its status must agree with. Raises ReceiptError."""
    statement = check(status.receipt, worker_id)
    check_ending(statement, status.raw)
    check_files(status.receipt, status.output_files)
    return statement


def check_files(receipt: Any, files: Iterable[OutputFile]) -> None:
    """Whether these are all outputs of a checked receipt. Raises ReceiptError."""
    listed = receipt.get("outputs") if isinstance(receipt, dict) else None
    if listed is None:
        raise ReceiptError("The receipt does not list the outputs.")
    signed = {(item["path"], item["size_bytes"], item["sha256"]) for item in listed}
    if signed != {(file.path, file.size_bytes, file.sha256) for file in files}:
        raise ReceiptError("The outputs that the server lists are not those of the receipt.")


def check_logs(statement: Mapping[str, Any], logs: Logs) -> None:
    """Whether this is what the job printed. Raises ReceiptError."""
    for name, data in (("stdout", logs.stdout_bytes), ("stderr", logs.stderr_bytes)):
        check_stream(statement, name, hashlib.sha256(data).hexdigest())


def check_stream(statement: Mapping[str, Any], name: str, sha256_hex: str) -> None:
    """Whether a stream with this SHA-256 is what the job printed on it. Raises ReceiptError."""
    if sha256_hex != statement.get(f"{name}_sha256"):
        raise ReceiptError(f"The {name} that the server gave is not the one that was signed.")


def check_job(statement: Mapping[str, Any], upload_sha256: str, manifest: Mapping[str, Any] | None) -> None:
    """Whether this is what ran; a manifest inside the upload is part of that. Raises ReceiptError."""
    if statement.get("upload_sha256") != upload_sha256:
        raise ReceiptError("What ran is not what was sent: the upload is another one.")
    if manifest is not None and statement.get("manifest_sha256") != manifest_sha256(manifest):
        raise ReceiptError("What ran is not what was sent: the manifest is another one.")


def check_nonce(worker_id: str, nonce: str, signature: Any) -> None:
    """Whether this worker answered the nonce. Raises ReceiptError."""
    _verify(worker_id, NONCE_DOMAIN + nonce.encode(), signature, "answer to the nonce")


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """SHA-256 in hex of the canonical manifest, without the fields that have their default."""
    counted = {
        name: value
        for name, value in manifest.items()
        if value is not None and (name not in _DEFAULTS or value != _DEFAULTS[name])
    }
    return hashlib.sha256(canonical(counted)).hexdigest()


def bundle_sha256(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 in hex of single files as an upload: path NUL, size in 12 digits NUL, the bytes."""
    digest = hashlib.sha256()
    for path, data in files:
        digest.update(b"%b\0%012d\0" % (path.encode(), len(data)))
        digest.update(data)
    return digest.hexdigest()


def canonical(value: Any) -> bytes:
    """The canonical JSON of a value whose keys are ASCII (RFC 8785). Raises ReceiptError."""
    try:
        return _text(value).encode()
    except ValueError as error:
        raise ReceiptError(f"The receipt or the manifest has no canonical form: {error}.") from None


def _text(value: Any) -> str:
    match value:
        case None | bool() | str() | int():
            return json.dumps(value, ensure_ascii=False)
        case float():
            return _number(value)
        case list() | tuple():
            return "[" + ",".join(_text(item) for item in value) + "]"
        case dict():
            return "{" + ",".join(f"{_text(key)}:{_text(value[key])}" for key in sorted(value)) + "}"
    raise ValueError(f"it has a {type(value).__name__}")


def _number(value: float) -> str:
    """As ECMAScript writes it: repr's shortest digits, in the notation of its size."""
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def _index_sha256(listed: Any, version: int) -> str:
    """Of the index that lists these outputs, as docs/receipts.md says for each version."""
    names, measures = [], []
    try:
        for item in listed:
            path, encoded = item["path"], item.get("path_base64")
            raw = path.encode() if encoded is None else base64.b64decode(encoded, validate=True)
            if encoded is not None and raw.decode("utf-8", "backslashreplace") != path:
                raise ReceiptError("A path among the receipt's outputs has two forms that differ.")
            size, digest = item["size_bytes"], item["sha256"]
            if version == 1:
                names.append(b"%b\0%d\0%b\0" % (raw, size, digest.encode()))
            else:
                names.append(b"%b\0%b\0" % (raw, item["mode"].encode()))
                measures.append(size.to_bytes(8, "big") + bytes.fromhex(digest))
        count = [len(measures).to_bytes(8, "big")] if measures else []
        return hashlib.sha256(b"".join([*count, *measures, *names])).hexdigest()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise ReceiptError("The receipt's list of outputs is malformed.") from None


def _verify(worker_id: str, message: bytes, signature: Any, what: str) -> None:
    try:
        from nacl.exceptions import BadSignatureError  # noqa: PLC0415
        from nacl.signing import VerifyKey  # noqa: PLC0415
    except ImportError:
        raise ReceiptError(
            "Checking signatures needs PyNaCl: pip install 'sandrun-client[verify]'."
        ) from None
    try:
        VerifyKey(_raw(worker_id)).verify(message, _raw(signature))
    except (ValueError, TypeError):
        raise ReceiptError(f"The {what} has a key or a signature that is none.") from None
    except BadSignatureError:
        raise ReceiptError(f"The signature of the {what} does not hold.") from None


def _raw(text: Any) -> bytes:
    """Standard base64 in its one canonical form."""
    if not isinstance(text, str):
        raise TypeError
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError from None
    if base64.b64encode(raw).decode() != text:
        raise ValueError
    return raw
