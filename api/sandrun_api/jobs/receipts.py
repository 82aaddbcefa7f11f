"""A job's receipt as clients get it: in a status, in the header of a download."""

import base64
from typing import Any

import msgspec

from sandrun_api.edge.json_pieces import Items
from sandrun_api.jobs.model import Job
from sandrun_shared.keys import text_of
from sandrun_shared.receipts import ListedOutput, Receipt

HEADER = "Sandrun-Receipt"
HEADER_BYTES = 3072  # proxies keep 4 KiB for all headers of an answer


def receipt_of(job: Job) -> Receipt | None:
    """The receipt, None before the job has finished and when its worker signs nothing."""
    if job.receipt is None:
        return None
    files = job.outputs.files if job.outputs is not None else ()
    listed = tuple(ListedOutput.of(file.entry) for file in files)
    return Receipt(job.receipt.statement, text_of(job.receipt.signature), listed)


def receipt_document(job: Job) -> dict[str, Any] | None:
    """The same as a document whose list of outputs is made while it is sent."""
    if job.receipt is None:
        return None
    files = job.outputs.files if job.outputs is not None else ()
    return {
        "statement": job.receipt.statement,
        "signature": text_of(job.receipt.signature),
        "outputs": Items(lambda: (ListedOutput.of(file.entry) for file in files)),
    }


def receipt_header(job: Job) -> dict[str, str]:
    """The header with the receipt in base64; the list of outputs is in it if there is room."""
    receipt = receipt_of(job)
    if receipt is None:
        return {}
    value = _encoded(receipt)
    if len(value) > HEADER_BYTES:
        value = _encoded(msgspec.structs.replace(receipt, outputs=None))
    return {HEADER: value}


def _encoded(receipt: Receipt) -> str:
    return base64.b64encode(msgspec.json.encode(receipt)).decode()
