"""Make indexes of outputs as an executor does."""

import hashlib

from sandrun_shared import outputs


def index_of(files: dict[str, bytes], mode: int = 0o644, modified: int = 1_700_000_000) -> bytes:
    """Make the index of these files, in this order."""
    listed = [
        (path.encode("utf-8", "surrogateescape"), mode, len(data), hashlib.sha256(data).hexdigest())
        for path, data in files.items()
    ]
    return outputs.signed_index(listed) + outputs.times(modified for _ in files)


def signed_sha256(files: dict[str, bytes], mode: int = 0o644) -> str:
    """Make what a receipt states of these files."""
    index = index_of(files, mode)
    return hashlib.sha256(index[: len(index) - len(files) * outputs.TIME.size]).hexdigest()
