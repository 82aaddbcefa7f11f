"""What a client holds against a receipt: how the job ended, what it printed, its files, what was sent.

Whether the receipt itself holds is for `sandrun_shared.receipts` to say. It is loaded when a receipt comes:
cryptography is slow to load, and most programs that use the client never need it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sandrun_client.errors import ReceiptError
from sandrun_client.models import Logs, OutputFile, Status

if TYPE_CHECKING:
    from sandrun_shared.receipts import Receipt


def check(document: Any, worker_id: str) -> "Receipt":
    """The receipt in a decoded answer, which this worker signed. Raises ReceiptError."""
    from sandrun_shared import receipts  # noqa: PLC0415

    if not isinstance(document, dict) or not isinstance(document.get("statement"), dict):
        raise ReceiptError("There is no receipt: this worker signs nothing, or the job never reached it.")
    try:
        receipt = receipts.read(document)
        receipts.verify(receipt)
    except receipts.ReceiptError as error:
        raise ReceiptError(f"The receipt does not hold: {error}.") from None
    if receipt.statement.worker_id != worker_id:
        raise ReceiptError(f"The receipt is of the worker {receipt.statement.worker_id}, not of {worker_id}.")
    return receipt


def check_ending(receipt: "Receipt", document: Mapping[str, Any]) -> None:
    """Whether a status or a result says what the receipt says. Raises ReceiptError."""
    for name in ("verdict", "exit_code", "signal"):
        signed = getattr(receipt.statement, name)
        if signed != document.get(name):
            raise ReceiptError(f"The server says {name} {document.get(name)}, the receipt says {signed}.")


def check_status(status: Status, worker_id: str) -> "Receipt":
    """The receipt of a finished job, which its status must agree with. Raises ReceiptError."""
    receipt = check(status.receipt, worker_id)
    check_ending(receipt, status.raw)
    check_files(receipt, status.output_files)
    return receipt


def check_files(receipt: "Receipt", files: Iterable[OutputFile]) -> None:
    """Whether these are all outputs of a receipt. Raises ReceiptError."""
    if receipt.outputs is None:
        raise ReceiptError("The receipt does not list the outputs.")
    signed = {(item.path, item.size_bytes, item.sha256) for item in receipt.outputs}
    if signed != {(file.path, file.size_bytes, file.sha256) for file in files}:
        raise ReceiptError("The outputs that the server lists are not those of the receipt.")


def check_logs(receipt: "Receipt", logs: Logs) -> None:
    """Whether this is what the job printed. Raises ReceiptError."""
    for name, data in (("stdout", logs.stdout_bytes), ("stderr", logs.stderr_bytes)):
        check_stream(receipt, name, hashlib.sha256(data).hexdigest())


def check_stream(receipt: "Receipt", name: str, sha256_hex: str) -> None:
    """Whether a stream with this SHA-256 is what the job printed on it. Raises ReceiptError."""
    if sha256_hex != getattr(receipt.statement, f"{name}_sha256"):
        raise ReceiptError(f"The {name} that the server gave is not the one that was signed.")


def check_job(receipt: "Receipt", upload_sha256: str, manifest: Mapping[str, Any] | None) -> None:
    """Whether this is what ran; a manifest inside the upload is part of that. Raises ReceiptError."""
    from sandrun_shared import manifests  # noqa: PLC0415

    if receipt.statement.upload_sha256 != upload_sha256:
        raise ReceiptError("What ran is not what was sent: the upload is another one.")
    if manifest is None:
        return
    try:
        sent = manifests.digest(manifest)
    except ValueError as error:
        raise ReceiptError(f"The manifest has no canonical form: {error}.") from None
    if receipt.statement.manifest_sha256 != sent:
        raise ReceiptError("What ran is not what was sent: the manifest is another one.")


def check_nonce(worker_id: str, nonce: str, signature: Any) -> None:
    """Whether this worker answered the nonce. Raises ReceiptError."""
    from sandrun_shared import receipts  # noqa: PLC0415

    if not isinstance(signature, str):
        raise ReceiptError("The server's worker did not sign the nonce.")
    try:
        receipts.verify_nonce(worker_id, nonce, signature)
    except receipts.ReceiptError as error:
        raise ReceiptError(f"The answer to the nonce does not hold: {error}.") from None
