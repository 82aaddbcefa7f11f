"""Shared by the api's unit tests."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio is what the server runs on."""
    return "asyncio"
