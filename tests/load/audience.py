"""Many readers of few jobs' live output, of which some never read: the others miss nothing, and memory stays."""

import asyncio
import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import connect

from load.growth import memory_kib
from load.remains import metric
from support import machine
from support.service import Service

JOBS = 4
LINES = 300
LINE = "x" * 8191
# The whole of it is more than a silent reader's buffers take, in the kernel and in the server.
PROGRAM = (
    f"import time\nfor n in range({LINES}):\n    print(f'{{n:06d}}' + '{LINE[6:]}')\n    time.sleep(0.01)\n"
)
EXPECTED = "".join(f"{n:06d}{LINE[6:]}\n" for n in range(LINES))
HELD_KIB = 256  # for each reader: a buffer, a piece, the socket's own objects
BASE_KIB = 64 << 10  # the jobs' logs, and what an api that has worked has more than one that has not


@dataclass
class Audience:
    """What came of it: readers that had everything, silent ones that were cut off, KiB, looks, seconds."""

    whole: int = 0
    cut_off: int = 0
    grown_kib: int = 0
    health_looks: int = 0
    slowest_health_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


async def attend(service: Service, readers: int, silent: int) -> Audience:
    """Follow JOBS jobs with a number of readers, and a number of clients that never read."""
    seen = Audience()
    api = service.daemon("sandrun_api")
    before = memory_kib(api)["Rss"]
    jobs = [await asyncio.to_thread(service.submit, PROGRAM) for _ in range(JOBS)]
    url = f"127.0.0.1:{service.port}"
    over = asyncio.Event()
    async with (
        httpx.AsyncClient(
            base_url=f"http://{url}", timeout=120, trust_env=False, limits=httpx.Limits(max_connections=None)
        ) as http,
        asyncio.TaskGroup() as group,
    ):
        watching = group.create_task(_watch(service, api, before, seen, over))
        quiet = [
            group.create_task(_never_read(service.port, jobs[n % JOBS], n % 2 == 0, over, seen))
            for n in range(silent)
        ]
        following = [
            group.create_task(
                _by_events(http, jobs[n % JOBS], seen) if n % 2 else _by_socket(url, jobs[n % JOBS], seen)
            )
            for n in range(readers)
        ]
        await asyncio.wait(following)
        for job in jobs:
            status = (await http.get(f"/status/{job}", params={"wait": 60})).json()
            if status["verdict"] != "ok":
                seen.wrong.append(f"a job ended as {status['verdict']}")
        await asyncio.wait(quiet)
        over.set()
        await watching
    return seen


async def _watch(service: Service, api: int, before: int, seen: Audience, over: asyncio.Event) -> None:
    """Ask for the health, and look at the memory, until it is over."""

    def look() -> tuple[int, float]:
        began = time.monotonic()
        return service.client.get("/health").status_code, time.monotonic() - began

    # Not one of asyncio's few threads, which the silent readers take for as long as they are held.
    with ThreadPoolExecutor(1) as thread:
        while not over.is_set():
            status, seconds = await asyncio.get_running_loop().run_in_executor(thread, look)
            seen.health_looks += 1
            seen.slowest_health_seconds = max(seen.slowest_health_seconds, seconds)
            if status != httpx.codes.OK:
                seen.wrong.append(f"/health says {status}")
            seen.grown_kib = max(seen.grown_kib, memory_kib(api)["Rss"] - before)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await over.wait()


def _account(seen: Audience, text: str, ended: bool) -> None:
    if text == EXPECTED and ended:
        seen.whole += 1
    else:
        seen.wrong.append(f"a reader had {len(text)} of {len(EXPECTED)} characters, finished: {ended}")


async def _by_events(http: httpx.AsyncClient, job: str, seen: Audience) -> None:
    async with http.stream("GET", f"/logs/{job}/events") as answer:
        said = b"".join([piece async for piece in answer.aiter_raw()]).decode()
    data = [
        json.loads(line.removeprefix("data: ")) for line in said.splitlines() if line.startswith("data: ")
    ]
    _account(seen, "".join(event.get("data", "") for event in data), "event: finished" in said)


async def _by_socket(url: str, job: str, seen: Audience) -> None:
    async with connect(f"ws://{url}/logs/{job}/stream", proxy=None) as stream:
        pieces = [message async for message in stream]
    _account(seen, "".join(pieces), stream.close_code == 1000)


async def _never_read(port: int, job: str, as_events: bool, over: asyncio.Event, seen: Audience) -> None:
    """Ask and read nothing until the server has hung up, which its end of the connection shows."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        head = f"GET /logs/{job}/{'events' if as_events else 'stream'} HTTP/1.1\r\nHost: localhost\r\n"
        if not as_events:
            head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            head += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        await loop.sock_sendall(sock, (head + "\r\n").encode())
        local = sock.getsockname()[1]
        if await asyncio.to_thread(machine.eventually, lambda: not _is_held(local, port), 120.0):
            seen.cut_off += 1
        else:
            seen.wrong.append("a reader that never reads was not cut off")


def _is_held(client_port: int, server_port: int) -> bool:
    """Whether the server still has its end of a connection (proc_pid_net_tcp(5)): established, local port first."""
    wanted = f"0100007F:{server_port:04X} 0100007F:{client_port:04X} 01"
    with open("/proc/net/tcp") as table:
        return any(wanted in line for line in table)


def check(seen: Audience, readers: int, silent: int) -> None:
    """Raises AssertionError with what is not as it must be."""
    assert not seen.wrong, seen.wrong[:5]
    assert seen.health_looks, "nobody looked at the memory"
    assert (seen.whole, seen.cut_off) == (readers, silent)
    allowed = BASE_KIB + HELD_KIB * (readers + silent)
    assert seen.grown_kib <= allowed, f"the api grew by {seen.grown_kib} KiB, more than {allowed}"


def run(readers: int, silent: int, send_seconds: float = 10) -> dict[str, Any]:
    """Measure one audience on a new service. Raises AssertionError."""
    environment = {
        "SANDRUN_API__CONNECTIONS_PER_ADDRESS": "0",
        "SANDRUN_API__SEND_SECONDS": str(send_seconds),
    }
    with Service(environment=environment, slots=JOBS) as service:
        assert service.run("print(1)")["verdict"] == "ok"
        seen = asyncio.run(attend(service, readers, silent))
        check(seen, readers, silent)
        assert machine.eventually(lambda: metric(service, "sandrun_running_jobs") == 0)
    return {
        "readers": seen.whole,
        "cut off": seen.cut_off,
        "api grew by KiB": seen.grown_kib,
        "/health looks": seen.health_looks,
        "slowest /health ms": round(seen.slowest_health_seconds * 1000),
    }
