"""The operator's socket: which jobs there are, by hashes; cancel, pause, resume, deny.

For root and the api's own user, who could do all this anyway: the kernel says who connects (SO_PEERCRED). No
answer holds anything of a job's content, nor an id by which it could be fetched.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sandrun_api.admission.gate import Pause
from sandrun_api.edge.access import Access, Denied
from sandrun_api.edge.clients import is_exempt, network_of
from sandrun_api.jobs.model import Job
from sandrun_api.jobs.service import JobService
from sandrun_shared.admin import ANSWER_BYTES, NAME, REQUEST_BYTES, TARGET

VARIABLE = "RUNTIME_DIRECTORY"  # of a service manager (systemd.exec(5)), and of `sandrun up`
CONNECTIONS = 4
SECONDS = 5.0  # for a request to arrive, and for its answer to be read
LISTED = 20_000  # jobs in one answer
RETRY_SECONDS = 300
CANCELLED = "cancelled by the operator"

_CREDENTIALS = struct.Struct("iII")  # struct ucred (unix(7)): pid, uid, gid
_SECRET = secrets.token_bytes(32)


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request; the commands that take them need target, reason, retry_after."""

    command: Annotated[str, Meta(max_length=20)]
    target: Annotated[str, Meta(max_length=64)] = ""
    reason: Annotated[str, Meta(max_length=500)] = ""
    retry_after: Annotated[int, Meta(ge=1, le=86400)] = RETRY_SECONDS


class _Refused(Exception):
    """A request that cannot be served; the text says why."""


def path_of(environ: Mapping[str, str]) -> Path | None:
    """Where to listen; None without a folder to do so in."""
    folder = environ.get(VARIABLE, "").partition(":")[0]
    return Path(folder) / NAME if folder else None


def hash_of(job: Job) -> str:
    """What stands for a job: its id is the credential of its client."""
    return hashlib.blake2b(job.job_id.encode(), key=_SECRET, digest_size=8).hexdigest()


class Admin:
    """Answers an operator's requests."""

    def __init__(self, service: JobService, access: Access) -> None:
        self._service = service
        self._access = access
        self._commands: dict[str, Callable[[_Request], dict[str, Any]]] = {
            "jobs": self._jobs,
            "cancel": self._cancel,
            "pause": self._pause,
            "resume": self._resume,
            "deny": self._deny,
        }

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to a request; `error` in it says why it was not served."""
        try:
            request = msgspec.json.decode(line, type=_Request)
            command = self._commands.get(request.command)
            if command is None:
                raise _Refused(f"no such command; there are: {', '.join(self._commands)}")
            return command(request)
        except (msgspec.DecodeError, _Refused, Denied) as error:
            return {"error": str(error)}

    def _jobs(self, _: _Request) -> dict[str, Any]:
        jobs = list(self._service.store)
        paused = self._service.gate.paused
        return {
            "jobs": [_shown(job) for job in jobs[:LISTED]],
            "left_out": max(0, len(jobs) - LISTED),
            "paused": None if paused is None else paused.reason,
            "denied": self._access.denied,
        }

    def _cancel(self, request: _Request) -> dict[str, Any]:
        if request.target != "all" and not re.fullmatch(TARGET, request.target):
            raise _Refused("name a job's hash, a client's or network's, or all")
        unfinished = [job for job in self._service.store if not job.is_finished]
        chosen = [job for job in unfinished if request.target in ("all", *_names(job))]
        if not chosen:
            raise _Refused("no job that waits or runs is meant by that")
        for job in chosen:
            self._service.cancel(job, CANCELLED)
        return {"cancelled": len(chosen)}

    def _pause(self, request: _Request) -> dict[str, Any]:
        reason = request.reason.strip() or "The operator has paused this server."
        self._service.gate.paused = Pause(reason, request.retry_after)
        return {"paused": reason}

    def _resume(self, _: _Request) -> dict[str, Any]:
        was, self._service.gate.paused = self._service.gate.paused, None
        return {"resumed": was is not None}

    def _deny(self, request: _Request) -> dict[str, Any]:
        self._access.deny(request.target)
        return {"denied": self._access.denied}


def _names(job: Job) -> tuple[str, ...]:
    client = job.request.client
    return tuple(name for name in (hash_of(job), str(client), network_of(client)) if name)


def _shown(job: Job) -> dict[str, Any]:
    client = job.request.client
    return {
        "job": hash_of(job),
        "state": job.state.value,
        "verdict": job.outcome.verdict.value if job.outcome is not None else None,
        "age_seconds": round(time.monotonic() - job.submitted_at, 1),
        "cpu_seconds": round(job.cpu_seconds, 3),
        "memory_bytes": job.memory_bytes,
        "client": str(client),
        "network": network_of(client) or None,
        "exempt": is_exempt(client),
    }


def may_ask(peer: socket.socket) -> bool:
    """Whether root or the api's own user is at the other end (SO_PEERCRED, unix(7))."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return uid in (0, os.geteuid())


def listen(path: Path) -> socket.socket:
    """A socket that only its owner and root can connect to from the moment it exists. Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


@contextlib.asynccontextmanager
async def serving(admin: Admin, path: Path | None) -> AsyncIterator[None]:
    """Serve the operator until the context is left; without a path nobody. Raises OSError."""
    if path is None:
        yield
        return
    open_connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_connections
        if open_connections >= CONNECTIONS or not may_ask(writer.get_extra_info("socket")):
            writer.close()
            return
        open_connections += 1
        try:
            async with asyncio.timeout(SECONDS):
                try:
                    line = await reader.readuntil(b"\n")
                except (asyncio.LimitOverrunError, asyncio.IncompleteReadError):
                    line = b""
                data = msgspec.json.encode(admin.answer(line))
                if len(data) >= ANSWER_BYTES:
                    data = msgspec.json.encode({"error": "the answer is too long"})
                writer.write(data + b"\n")
                await writer.drain()
        except (TimeoutError, OSError):
            writer.transport.abort()
        finally:
            open_connections -= 1
            writer.close()

    listener = listen(path)
    server = await asyncio.start_unix_server(serve, sock=listener, limit=REQUEST_BYTES, backlog=CONNECTIONS)
    try:
        yield
    finally:
        server.close()
        _remove(path)
