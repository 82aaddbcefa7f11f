"""Each property of the fuzzer for a few inputs; tests/fuzz/run.py tries many."""

import pytest
from hypothesis import HealthCheck, settings

from fuzz import archives, manifests, multipart, protocol
from fuzz.target import Target

TARGETS = archives.TARGETS + manifests.TARGETS + multipart.TARGETS + protocol.TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_property(target: Target) -> None:
    quick = settings(max_examples=target.examples, suppress_health_check=[*HealthCheck])
    quick(target.test())()
