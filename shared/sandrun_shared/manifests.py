"""The digest of a manifest, which the api passes on and a receipt states.

`sandrun_api.jobs.manifest` defines the fields of a manifest; a test compares both.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from sandrun_shared import canonical

# Defaults, with which a field is left out; the entrypoint has none.
DEFAULTS: Mapping[str, Any] = {
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
# Likewise for the object `gpu`.
GPU_DEFAULTS: Mapping[str, Any] = {
    "required": True,
    "device_id": None,
    "min_vram_gb": None,
    "cuda_version": None,
    "compute_capability": None,
}


def digest(manifest: Mapping[str, Any]) -> str:
    """Hash the canonical manifest (RFC 8785) without fields that have their default: SHA-256 in hex.

    Raises ValueError for a value without a canonical form.
    """
    counted = _without(manifest, DEFAULTS)
    if isinstance(gpu := counted.get("gpu"), Mapping):
        counted["gpu"] = _without(gpu, GPU_DEFAULTS)
    return hashlib.sha256(canonical.encode(counted)).hexdigest()


def _without(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in given.items()
        if name not in defaults or (value is not None and value != defaults[name])
    }
