"""Answers of a Sandrun server, for clients that are tested without one."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx


def status(job_id: str = "job", state: str = "completed", **fields: Any) -> dict[str, Any]:
    """A status document."""
    ended = state in ("completed", "failed")
    return {
        "job_id": job_id,
        "status": state,
        "queue_position": None,
        "verdict": "ok" if ended else None,
        "exit_code": 0 if ended else None,
        "signal": None,
        "detail": "",
        "metrics": {"cpu_seconds": 0.5, "memory_mb": 3.0, "runtime": 0.7, "queued_seconds": 0},
        "limits": {"timeout": 300.0},
        "output_files": {},
        "receipt": None,
        **fields,
    }


def result(**fields: Any) -> dict[str, Any]:
    """The answer of POST /run."""
    return {
        **status(),
        "output": "hi\n",
        "stdout": "hi\n",
        "stderr": "",
        "truncated": False,
        "files": [],
        "images": [],
        **fields,
    }


def logs(stdout: str = "", stderr: str = "", encoding: str = "utf-8", next_offset: int = 0) -> dict[str, Any]:
    """The answer of GET /logs/{job_id}."""
    return {
        "stdout": stdout,
        "stderr": stderr,
        "encoding": encoding,
        "truncated": False,
        "next_offset": next_offset,
    }


def refusal(code: int, reason: str = "because", **headers: str) -> httpx.Response:
    """An error in the one shape that errors have."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(code, json={"error": "An error", "reason": reason}, headers=names)


def output_event(sequence: int, text: str, stream: str = "stdout") -> bytes:
    """A server-sent event with some output."""
    data = {"type": "output", "stream": stream, "sequence": sequence, "data": text}
    return b"id: %d\ndata: %b\n\n" % (sequence, json.dumps(data).encode())


def finished_event(sequence: int, document: dict[str, Any]) -> bytes:
    """The last server-sent event."""
    data = json.dumps({"type": "finished", **document}).encode()
    return b"id: %d\nevent: finished\ndata: %b\n\n" % (sequence, data)


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks off after these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        raise httpx.ReadError("cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece
