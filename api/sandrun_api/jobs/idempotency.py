"""Retries that must not submit twice: the Idempotency-Key header, remembered for a while."""

from collections import OrderedDict

from sandrun_api.errors import ApiError

MAX_KEYS = 10_000
MAX_KEY_LENGTH = 255


class IdempotencyKeys:
    """The job that each client's key stands for; the oldest keys are forgotten first."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, str], tuple[str, str]] = OrderedDict()

    def find(self, client: str, key: str | None, job_hash: str) -> str | None:
        """The id of the job submitted under this key before.

        Raises ApiError: 400 for a key that is too long, 409 when the key stands for another job.
        """
        if key is None:
            return None
        if not key or len(key) > MAX_KEY_LENGTH:
            raise ApiError(400, f"An Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters.")
        job_id, known_hash = self._jobs.get((client, key), (None, job_hash))
        if known_hash != job_hash:
            raise ApiError(409, "This Idempotency-Key was used for another upload or manifest.")
        return job_id

    def remember(self, client: str, key: str | None, job_id: str, job_hash: str) -> None:
        """Let the key stand for the job."""
        if key is None:
            return
        self._jobs[client, key] = (job_id, job_hash)
        if len(self._jobs) > MAX_KEYS:
            self._jobs.popitem(last=False)

    def forget(self, client: str, key: str) -> None:
        """Let the key stand for nothing: its job is gone."""
        self._jobs.pop((client, key), None)
