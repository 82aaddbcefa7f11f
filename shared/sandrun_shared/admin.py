"""The operator's socket of the api: where it is, and how long what travels over it may be.

One connection carries one request and one answer, each a JSON object in one line.
"""

from pathlib import Path

FOLDER = "api"  # next to the executor's socket; the api's own, as it runs without privileges
NAME = "admin.sock"
REQUEST_BYTES = 8192
ANSWER_BYTES = 16 << 20
TARGET = r"[0-9a-f]{16}|[0-9a-f]{32}"  # a job by its hash, a client or a network by its key


def socket_of(executor_socket: str) -> Path:
    """The socket of the api whose executor listens there."""
    return Path(executor_socket).parent / FOLDER / NAME
