"""Memory of the api after many small jobs, of which nothing is kept."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from support.service import Service

CLIENTS = 8
FIRST = 2000  # jobs, after which caches and pools have their size
CHUNK = 1000
ALLOWED_KIB = 10 << 10
MANIFEST = {"manifest": json.dumps({"entrypoint": "main.sh"})}


def memory_kib(pid: int) -> dict[str, int]:
    """Rss and Pss of a process in KiB (proc_pid_smaps_rollup(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) for name in ("Rss", "Pss")}


def growth(service: Service, jobs: int, seconds: float) -> Iterator[tuple[int, dict[str, int]]]:
    """(jobs so far, KiB of the api) after every CHUNK of small jobs, until there are enough or time is up."""
    deadline = time.monotonic() + seconds
    api = service.daemon("sandrun_api")
    clients = [
        httpx.Client(base_url=service.client.base_url, timeout=60, trust_env=False) for _ in range(CLIENTS)
    ]
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for done in range(CHUNK, jobs + 1, CHUNK):
                for _ in pool.map(_some, clients, [CHUNK // CLIENTS] * CLIENTS):
                    pass
                yield done, memory_kib(api)
                if time.monotonic() > deadline:
                    return
    finally:
        for client in clients:
            client.close()


def _some(client: httpx.Client, count: int) -> None:
    """Run small jobs, alternating between a run and one that is submitted, awaited and deleted."""
    for number in range(count):
        if number % 2:
            answer = client.post("/run", json={"code": "echo 1", "interpreter": "sh"}).json()
            assert answer["output"] == "1\n", answer
            continue
        answer = client.post("/submit", files={"files": ("main.sh", b"echo 1")}, data=MANIFEST).json()
        status = client.get(f"/status/{answer['job_id']}", params={"wait": 60}).json()
        assert status["verdict"] == "ok", status
        assert client.delete(f"/jobs/{answer['job_id']}").status_code == httpx.codes.NO_CONTENT
