"""Latency and throughput of every subject, interleaved: what disturbs one disturbs all."""

import multiprocessing
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import TypeVar

from clients import Client, Subject, pause

IDLE_SECONDS = 0.1
IDLE_JOBS = 3  # in each round
WINDOW_SECONDS = 1.0  # of throughput, in each round
CLIENTS = (1, 2, 8)
BARE_AT_ONCE = 2  # what is compared with: two bare processes in parallel

Answer = TypeVar("Answer")
Samples = dict[str, dict[str, list[float]]]
Rates = dict[str, dict[int, list[float]]]


def _timed(client: Client) -> float:
    start = time.perf_counter()
    client()
    return time.perf_counter() - start


def latencies(subjects: Iterable[Subject], rounds: int) -> Samples:
    """Seconds of each job: by subject, "back to back" and "after idleness"."""
    chosen = {subject.name: subject for subject in subjects}
    clients = {name: subject.connect() for name, subject in chosen.items()}
    samples: Samples = {name: {"back to back": [], "after idleness": []} for name in clients}
    try:
        for client in clients.values():
            for _ in range(3):
                client()
        for number in range(rounds):
            names = list(clients)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                client, taken = clients[name], samples[name]
                pause(IDLE_SECONDS)  # what the subject before left to do is done now
                client.close()  # reconnect, because the api hangs up on a connection that was idle for long
                client()  # after a pause, not counted
                taken["back to back"] += [_timed(client) for _ in range(chosen[name].program.burst)]
                for _ in range(IDLE_JOBS):
                    pause(IDLE_SECONDS)
                    taken["after idleness"].append(_timed(client))
    finally:
        for client in clients.values():
            client.close()
    return samples


def _child(prepare: Callable[[], Callable[[], Answer]], pipe: Connection) -> None:
    """Prepare, say so, wait for the word, work, tell."""
    work = prepare()
    pipe.send(None)
    pipe.recv()
    pipe.send(work())


def at_once(prepare: Callable[[], Callable[[], Answer]], clients: int) -> list[Answer]:
    """Run client processes that begin together; returns their reports."""
    context = multiprocessing.get_context("fork")
    workers = []
    for _ in range(clients):
        ours, theirs = context.Pipe()
        process = context.Process(target=_child, args=(prepare, theirs))
        process.start()
        theirs.close()
        workers.append((process, ours))
    try:
        for _, pipe in workers:
            pipe.recv()
        for _, pipe in workers:
            pipe.send(None)
        return [pipe.recv() for _, pipe in workers]
    finally:
        for process, pipe in workers:
            pipe.close()
            process.join(1)
            process.kill()
            process.join()


def jobs_per_second(subject: Subject, clients: int, seconds: float) -> float:
    """Measure throughput with several client processes, each as fast as it is answered."""

    def prepare() -> Callable[[], tuple[int, float]]:
        client = subject.connect()
        client()

        def work() -> tuple[int, float]:
            start = time.perf_counter()
            done = 0
            while time.perf_counter() - start < seconds:
                client()
                done += 1
            return done, time.perf_counter() - start

        return work

    return sum(done / taken for done, taken in at_once(prepare, clients))


def throughputs(subjects: Iterable[Subject], rounds: int, seconds: float = WINDOW_SECONDS) -> Rates:
    """Jobs per second: by subject and number of clients."""
    rates: Rates = {}
    for _ in range(rounds):
        for subject in subjects:
            for clients in CLIENTS:
                pause(IDLE_SECONDS)
                rate = jobs_per_second(subject, clients, seconds)
                rates.setdefault(subject.name, {}).setdefault(clients, []).append(rate)
    return rates
