"""Log latency: from the moment a job prints a line to the moment a subscriber has it."""

import contextlib
import threading
import time

from clients import HttpClient, Program
from websockets.sync.client import connect

LINES = 300
PAUSE_SECONDS = 0.01
# CLOCK_REALTIME, which a time namespace does not change (time_namespaces(7)).
TALKER = (
    "import time\n"
    f"for _ in range({LINES}):\n"
    "    print(time.time_ns(), flush=True)\n"
    f"    time.sleep({PAUSE_SECONDS})\n"
)


def follow(url: str) -> list[float]:
    """Seconds of every line that was printed after the subscription."""
    taken: list[float] = []
    rest = ""
    with connect(url, compression=None, proxy=None) as stream:
        since = time.time_ns()
        for message in stream:
            now = time.time_ns()
            *lines, rest = (rest + str(message)).split("\n")
            taken += [(now - int(line)) / 1e9 for line in lines if int(line) > since]
    return taken


def latencies(port: int, subscribers: int) -> list[float]:
    """Seconds of all lines of one job at all its subscribers, each a thread."""
    client = HttpClient(port, Program("talker", "python3", "", TALKER, b""))
    with contextlib.closing(client):
        url = f"ws://127.0.0.1:{port}/stream/{client.submit()}"
        taken: list[list[float]] = []
        threads = [threading.Thread(target=lambda: taken.append(follow(url))) for _ in range(subscribers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if len(taken) != subscribers or not all(taken):
        raise RuntimeError("a subscriber got nothing")
    return [seconds for one in taken for seconds in one]
