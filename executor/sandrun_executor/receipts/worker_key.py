"""The worker's Ed25519 key: read once at start, held by this process alone."""

import os
from collections.abc import Mapping

from nacl.signing import SigningKey

from sandrun_shared import keys, receipts
from sandrun_shared.credentials import locate
from sandrun_shared.settings import SettingsError


class WorkerKey:
    """Signs for this worker; worker_id is its public key as base64."""

    def __init__(self, seed: bytes) -> None:
        """Derive the key from a seed of 32 bytes (RFC 8032)."""
        self._key = SigningKey(seed)
        self.worker_id = keys.text_of(bytes(self._key.verify_key))

    @classmethod
    def load(cls, setting: str, environ: Mapping[str, str] = os.environ) -> "WorkerKey | None":
        """Load the key that the setting names, None for an empty setting. Raises KeyFileError.

        A name without `/` is a systemd credential (systemd.exec(5), LoadCredential=).
        """
        if not setting:
            return None
        try:
            path = locate(setting, environ)
        except SettingsError:
            raise keys.KeyFileError(
                f"[executor] worker_key names the credential {setting}, but systemd passed none: "
                f"use LoadCredential={setting}:FILE in the unit, or the path of a file"
            ) from None
        return cls(keys.read(path, keys.KeyKind.worker))

    def sign(self, statement: receipts.Statement) -> receipts.SignedStatement:
        """Sign the statement of one execution."""
        return receipts.sign(self._key, statement)

    def sign_nonce(self, nonce: str) -> bytes:
        """Prove who this worker is."""
        return receipts.sign_nonce(self._key, nonce)
