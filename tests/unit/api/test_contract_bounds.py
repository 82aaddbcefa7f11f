"""Bounds that the api must hold, because nobody behind it answers with a reason."""

import pytest

from sandrun_api.errors import ApiError
from sandrun_api.jobs.idempotency import IdempotencyKeys
from sandrun_api.jobs.manifest import parse
from sandrun_shared.jobs import MAX_CPU_SECONDS


def test_cpu_seconds_that_the_executor_refuses_are_refused_first() -> None:
    assert parse(f'{{"entrypoint": "a.py", "cpu_seconds": {MAX_CPU_SECONDS}}}').cpu_seconds == MAX_CPU_SECONDS
    with pytest.raises(ApiError) as caught:
        parse(f'{{"entrypoint": "a.py", "cpu_seconds": {MAX_CPU_SECONDS * 2}}}')
    assert (caught.value.status, caught.value.errors[0].pointer) == (400, "/cpu_seconds")


@pytest.mark.parametrize("key", ["", "a b", "é", "a\n", "x" * 256])
def test_a_key_is_visible_ascii(key: str) -> None:
    with pytest.raises(ApiError) as caught:
        IdempotencyKeys().find("client", key, "hash")
    assert caught.value.status == 400


def test_a_key_may_be_long() -> None:
    assert IdempotencyKeys().find("client", "~" * 255, "hash") is None
