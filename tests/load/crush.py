"""More uploads at once than there is memory for: each is taken, or refused with an answer that can be read."""

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx

from load.remains import metric
from support import machine
from support.service import Service

MEGABYTE = 1_000_000
PIECE = 1 << 20
PROGRAM = "import hashlib\nprint(hashlib.file_digest(open('blob', 'rb'), 'sha256').hexdigest())\nopen('done', 'w')\n"
BOUNDARY = "a boundary that no file holds"


def _part(name: str, file_name: str | None = None) -> bytes:
    file = "" if file_name is None else f'; filename="{file_name}"'
    return f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()


class _Upload:
    """One upload, made of a seed so that it need not be held."""

    def __init__(self, number: int, size: int) -> None:
        self._block = os.urandom(PIECE - 8) + number.to_bytes(8)
        self._size = size
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        self.sha256 = digest.hexdigest()
        manifest = json.dumps({"entrypoint": "main.py", "outputs": ["done"], "memory_mb": 512})
        self._head = _part("manifest") + manifest.encode() + _part("files", "main.py") + PROGRAM.encode()
        self._head += _part("files", "blob")
        self._tail = f"\r\n--{BOUNDARY}--\r\n".encode()

    def _pieces(self) -> list[bytes]:
        whole, rest = divmod(self._size, PIECE)
        return [self._block] * whole + [self._block[:rest]]

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body."""
        yield self._head
        for piece in self._pieces():
            yield piece
        yield self._tail

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers."""
        size = len(self._head) + self._size + len(self._tail)
        return {"Content-Type": f'multipart/form-data; boundary="{BOUNDARY}"', "Content-Length": str(size)}


async def _send(
    http: httpx.AsyncClient, upload: _Upload, ended: asyncio.Condition, answers: Counter[int]
) -> None:
    """Send until it is taken, then see it run. Raises AssertionError."""
    while True:
        answer = await http.post("/submit", content=upload.body(), headers=upload.headers)
        answers[answer.status_code] += 1
        if answer.status_code == httpx.codes.OK:
            break
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
        assert "memory" in answer.json()["reason"], answer.text
        assert int(answer.headers["retry-after"]) > 0
        async with ended:
            await ended.wait()
    job = answer.json()["job_id"]
    status: dict[str, Any] = {}
    while status.get("verdict") is None:
        status = (await http.get(f"/status/{job}", params={"wait": 60})).json()
    assert status["verdict"] == "ok", status
    said = (await http.get(f"/logs/{job}", headers={"accept": "text/plain"})).text
    assert said == upload.sha256 + "\n"
    assert (await http.delete(f"/jobs/{job}")).status_code == httpx.codes.NO_CONTENT
    async with ended:
        ended.notify_all()


async def _all(service: Service, count: int, size: int, budget_bytes: int) -> tuple[Counter[int], float]:
    answers: Counter[int] = Counter()
    ended = asyncio.Condition()
    over = asyncio.Event()
    most = 0.0

    async def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, await asyncio.to_thread(metric, service, "sandrun_held_bytes"))

    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=300, trust_env=False) as http,
        asyncio.TaskGroup() as group,
    ):
        watching = group.create_task(watch())
        uploads = [_Upload(number, size) for number in range(count)]
        sending = [group.create_task(_send(http, upload, ended, answers)) for upload in uploads]
        await asyncio.gather(*sending)
        over.set()
        await watching
    assert most <= budget_bytes, f"{most} bytes were held, of {budget_bytes}"
    return answers, most


def run(count: int, megabytes: int, budget_mb: int) -> dict[str, Any]:
    """Measure simultaneous uploads on a new service. Raises AssertionError."""
    environment = {
        "SANDRUN_LIMITS__MEMORY_BUDGET_MB": str(budget_mb),
        "SANDRUN_LIMITS__DISK_MB": "110",
        "SANDRUN_QUOTA__UNFINISHED_MB": "4096",  # all come from one address here
    }
    with Service(environment=environment) as service:
        assert service.run("print(1)")["verdict"] == "ok"
        answers, most = asyncio.run(_all(service, count, megabytes * MEGABYTE, budget_mb << 20))
        assert answers[httpx.codes.OK] == count
        assert machine.eventually(lambda: metric(service, "sandrun_held_bytes") == 0)
    return {
        "uploads": count,
        "answers": {str(code): times for code, times in answers.items()},
        "most bytes held": most,
    }
