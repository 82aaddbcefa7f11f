"""Requests made from the OpenAPI document, valid and not: every answer is one that it announces."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from support.live import Live

pytestmark = pytest.mark.anyio

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
PROGRAM = "from schemathesis.cli import schemathesis; schemathesis()"
SECONDS = 100.0
OPERATIONS = 14


async def test_answers_are_what_the_document_announces(live_fake: Live, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", PROGRAM, "--no-color", "run", "--checks", "all", "--no-shrink"),
        *("--seed", "1", "--max-examples", "10", "--suppress-health-check", "all"),
        f"{live_fake.client.base_url}/openapi.json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,  # no settings of anybody's are found there
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(HOOKS.parents[1]),
            "SCHEMATHESIS_HOOKS": str(HOOKS),
            "HOME": str(tmp_path),
        },
    )
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode()
    assert process.returncode == 0, text
    assert f"Tested: {OPERATIONS}" in text, text
