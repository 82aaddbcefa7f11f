"""After a job is deleted nothing of it is in the memory of any process of ours, nor in the kernel's log."""

import json
import secrets
from collections.abc import Iterator

import pytest

from support import machine, memory
from support.kernel_log import KernelLog
from support.service import Service

DAEMONS = ("sandrun_api", "sandrun_executor")


@pytest.fixture(scope="module")
def service(_root: None) -> Iterator[Service]:
    """One for all tests."""
    with Service() as running:
        yield running


@pytest.fixture
def canary() -> str:
    """A word that is nowhere else."""
    return f"canary{secrets.token_hex(8)}"


def found(service: Service, canary: str) -> dict[int, int]:
    """Processes of ours that have the canary in memory, and how often."""
    counts = {pid: memory.occurrences(pid, canary.encode()) for pid in machine.descendants(service.pid)}
    return {pid: count for pid, count in counts.items() if count}


def others(service: Service) -> None:
    """Requests of somebody else: they turn buffers over, and let the interpreter collect its garbage."""
    for _ in range(5):
        assert service.run("print(1)")["stdout"] == "1\n"
        service.client.get("/stats")


def forgotten(service: Service, canary: str) -> bool:
    others(service)
    return not found(service, canary)


def submit(service: Service, canary: str, code: str) -> str:
    """A job with the canary wherever a client can put one."""
    manifest = {
        "entrypoint": f"{canary}.py",
        "args": [f"{canary}-arg"],
        "env": {f"{canary}": f"{canary}-env"},
        "stdin": f"{canary}-stdin\n",
    }
    answer = service.client.post(
        "/submit",
        files={"files": (f"{canary}.py", code.encode())},
        data={"manifest": json.dumps(manifest)},
        headers={"Idempotency-Key": f"{canary}-key"},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


def code_of(canary: str) -> str:
    return (
        f"import os, sys\nprint('{canary}-out', sys.argv, input(), dict(os.environ))\n"
        f"print('{canary}-err', file=sys.stderr)\n"
        f"open('{canary}.txt', 'w').write('{canary}' * 50_000)\n"
    )


def test_a_downloaded_job_is_forgotten(service: Service, canary: str) -> None:
    others(service)
    before = [memory.memfds(service.daemon(name)) for name in DAEMONS]
    job = submit(service, canary, code_of(canary))
    assert service.status(job, wait=30)["verdict"] == "ok"
    assert canary in service.client.get(f"/logs/{job}").text
    assert canary in service.client.get(f"/logs/{job}/events").text
    assert canary in service.client.get(f"/outputs/{job}").text
    assert canary in service.client.get(f"/download/{job}/{canary}.txt").text
    assert service.daemon("sandrun_api") in found(service, canary)  # so the search finds what is there
    assert service.client.get(f"/download/{job}").status_code == 200
    assert service.client.get(f"/status/{job}").status_code == 404
    assert machine.eventually(lambda: forgotten(service, canary)), found(service, canary)
    assert machine.eventually(lambda: [memory.memfds(service.daemon(name)) for name in DAEMONS] == before)


def test_a_cancelled_job_is_forgotten(service: Service, canary: str) -> None:
    job = submit(service, canary, f"{code_of(canary)}sys.stdout.flush()\nos.read(os.pipe()[0], 1)\n")
    service.until(job, lambda status: status["status"] == "running")
    assert service.client.delete(f"/jobs/{job}").status_code == 204
    assert machine.eventually(lambda: forgotten(service, canary)), found(service, canary)


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_a_run_is_forgotten(service: Service, canary: str, kind: str) -> None:
    code = f"import sys\nprint('{canary}' * 100)\nprint('{canary}', file=sys.stderr)\n1 / 0\n"
    if kind == "text/plain":
        answer = service.client.post("/run", content=code, headers={"content-type": kind})
    else:
        answer = service.client.post(
            "/run", json={"code": code, "args": [canary], "stdin": canary, "files": {f"{canary}.txt": canary}}
        )
    assert canary in answer.text
    assert machine.eventually(lambda: forgotten(service, canary)), found(service, canary)


def test_a_job_out_of_memory_is_forgotten(service: Service, canary: str) -> None:
    """By the kernel's log too, where a command name has 15 bytes."""
    log = KernelLog()
    code = (
        f"import os, shutil, sys\nif len(sys.argv) == 1:\n shutil.copy('/usr/bin/python3', '{canary}')\n"
        f" os.execv('./{canary}', ['{canary}', sys.argv[0], 'again'])\n"
        f"x = []\nwhile True: x.append('{canary}' * 50_000)\n"
    )
    try:
        answer = service.client.post("/run", json={"code": code, "memory_mb": 64}).raise_for_status().json()
        assert answer["verdict"] == "memory_limit"
        assert canary[:15] not in log.text()
        assert service.client.delete(f"/jobs/{answer['job_id']}").status_code == 204  # its output is kept
    finally:
        log.close()
    assert machine.eventually(lambda: forgotten(service, canary)), found(service, canary)


def test_what_was_refused_is_forgotten(service: Service, canary: str) -> None:
    for manifest in (f'{{"entrypoint": "{canary}"}}', f'{{"{canary}": 1}}', canary):
        answer = service.client.post(
            "/submit", files={"files": (f"{canary}.py", canary.encode())}, data={"manifest": manifest}
        )
        assert answer.status_code == 400
    assert service.client.get(f"/status/{canary}").status_code == 404
    assert service.client.get(f"/{canary}", headers={"x-forwarded-for": canary}).status_code == 404
    assert machine.eventually(lambda: forgotten(service, canary)), found(service, canary)
