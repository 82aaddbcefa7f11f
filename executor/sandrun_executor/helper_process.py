"""Starts a helper as the api's user, without privileges or descriptors, and reads its one bounded answer."""

import asyncio
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from sandrun_executor import trusted_paths

ANSWER_BYTES = 64 << 10
KILL_SECONDS = 5.0


def command(module: str) -> list[str]:
    """The command line that runs a module of the helpers."""
    return [trusted_paths.python(), "-P", "-m", module]


def ids_of(user: str) -> tuple[int, int]:
    """The uid and gid of a user. Raises KeyError."""
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


async def ask(
    arguments: Sequence[str],
    ids: tuple[int, int],
    *,
    seconds: float,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Run a command with that uid and gid; returns at most ANSWER_BYTES of its output.

    variables are added to its environment. Raises OSError if it cannot start, TimeoutError if it does not end
    in time; its session is then killed.
    """
    modules = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **modules, **variables},
        cwd="/",
        user=ids[0],
        group=ids[1],
        extra_groups=[],
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            answer = await _read(process)
            if len(answer) < ANSWER_BYTES:
                await process.wait()
        return answer
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(TimeoutError):  # a driver may hold it in state D; it is reaped when it dies
                async with asyncio.timeout(KILL_SECONDS):
                    await process.wait()


async def _read(process: asyncio.subprocess.Process) -> bytes:
    if process.stdout is None:
        return b""
    answer = b""
    while len(answer) <= ANSWER_BYTES and (piece := await process.stdout.read(ANSWER_BYTES)):
        answer += piece
    return answer[:ANSWER_BYTES]
