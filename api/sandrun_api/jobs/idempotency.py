"""Retries that must not submit twice: the Idempotency-Key header, remembered as long as its job."""

import hashlib
import re
import secrets

from sandrun_api.errors import ApiError

# Visible ASCII, which every proxy passes on as it is; a header's outer spaces are not its own.
KEY_PATTERN = r"^[!-~]{1,255}$"


class IdempotencyKeys:
    """The job that each client's key stands for. Keys are a client's words: only their digests are kept."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._jobs: dict[bytes, tuple[str, str]] = {}
        self._digests: dict[str, bytes] = {}  # by job

    def knows(self, client: str, key: str | None) -> bool:
        """Whether the key stands for a job: a retry of it submits nothing."""
        return key is not None and self._digest(client, key) in self._jobs

    def find(self, client: str, key: str | None, job_hash: str) -> str | None:
        """The id of the job submitted under this key before.

        Raises ApiError: 400 for a malformed key, 409 when it stands for another job.
        """
        if key is None:
            return None
        if not re.fullmatch(KEY_PATTERN, key):
            raise ApiError(400, "An Idempotency-Key has 1 to 255 visible ASCII characters, and no space.")
        job_id, known_hash = self._jobs.get(self._digest(client, key), (None, job_hash))
        if known_hash != job_hash:
            raise ApiError(409, "This Idempotency-Key was used for another upload or manifest.")
        return job_id

    def remember(self, client: str, key: str | None, job_id: str, job_hash: str) -> None:
        """Let the key stand for the job."""
        if key is None:
            return
        digest = self._digest(client, key)
        self._jobs[digest] = (job_id, job_hash)
        self._digests[job_id] = digest

    def forget(self, job_id: str) -> None:
        """The job is gone: its key stands for nothing."""
        digest = self._digests.pop(job_id, None)
        if digest is not None:
            del self._jobs[digest]

    def _digest(self, client: str, key: str) -> bytes:
        text = f"{client} {key}".encode(errors="replace")
        return hashlib.blake2b(text, key=self._secret, digest_size=16).digest()
