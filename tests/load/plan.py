"""What each job of a load does and how its client misbehaves: chosen by the seed and the job's number alone."""

import enum
import random
from dataclasses import dataclass

BLOB_BYTES = 4 << 20  # more than the buffers of a connection whose reader stopped
LINES = 20


class Behaviour(enum.StrEnum):
    """What the client of one job does."""

    wait = "wait"  # submit, wait, read, download
    run = "run"  # POST /run
    retry = "retry"  # submit twice at once under one Idempotency-Key
    cancel = "cancel"  # delete it while it waits or runs
    cut_upload = "cut upload"  # leave in the middle of the upload, then send it whole
    cut_answer = "cut answer"  # leave when the upload is sent, then send it again
    cut_events = "cut events"  # leave the server-sent events, come back with the last id
    cut_socket = "cut socket"  # the same with the WebSocket
    cut_run = "cut run"  # leave a run that has begun to print
    cut_download = "cut download"  # leave the archive after its first bytes, then take it whole


WEIGHTS = {
    Behaviour.wait: 25,
    Behaviour.run: 20,
    Behaviour.retry: 8,
    Behaviour.cancel: 12,
    Behaviour.cut_upload: 7,
    Behaviour.cut_answer: 7,
    Behaviour.cut_events: 6,
    Behaviour.cut_socket: 6,
    Behaviour.cut_run: 5,
    Behaviour.cut_download: 4,
}

# Each says its number, and a word that no other run of it would say: who ran twice has two of them.
_SAY = "import os, sys\nprint({number}, os.urandom(8).hex(), flush=True)\n"
_LEAVE = "open('number', 'w').write('{number}')\n"
_TALK = (
    "import time\nfor line in range({lines}):\n    print({number}, line, flush=True)\n    time.sleep(0.005)\n"
)
_WAIT = "os.read(os.pipe()[0], 1)\n"
_BLOB = "open('blob', 'wb').write(os.urandom({blob}))\n"
_CODE = {
    Behaviour.wait: _SAY + _LEAVE,
    Behaviour.retry: _SAY + _LEAVE,
    Behaviour.cut_upload: _SAY + _LEAVE,
    Behaviour.cut_answer: _SAY + _LEAVE,
    Behaviour.run: _SAY,
    Behaviour.cancel: _SAY + _WAIT,
    Behaviour.cut_events: _SAY + _TALK,
    Behaviour.cut_socket: _SAY + _TALK,
    Behaviour.cut_run: _SAY + _WAIT,
    Behaviour.cut_download: _SAY + _LEAVE + _BLOB,
}


@dataclass(frozen=True)
class Task:
    """One job and its client's behaviour; `fraction` says where it leaves, `key` makes retries safe."""

    number: int
    behaviour: Behaviour
    fraction: float
    key: str

    @property
    def code(self) -> str:
        """The program."""
        return _CODE[self.behaviour].format(number=self.number, lines=LINES, blob=BLOB_BYTES)


@dataclass(frozen=True)
class Plan:
    """A load: numbers of jobs and clients, and the jobs before whose start a daemon is killed."""

    jobs: int
    clients: int
    seed: int
    executor_kills: int = 1
    api_restarts: int = 0

    def task(self, number: int) -> Task:
        """The task of that number."""
        choices = random.Random(f"{self.seed} {number}")
        (behaviour,) = choices.choices([*WEIGHTS], [*WEIGHTS.values()])
        return Task(number, behaviour, choices.random(), f"{self.seed}-{number}")

    def faults(self) -> dict[int, str]:
        """The daemon that is killed, by the number of jobs taken up by then: spread over the load."""
        total = self.executor_kills + self.api_restarts
        names = ["sandrun_executor"] * self.executor_kills
        for _ in range(self.api_restarts):
            names.insert(len(names) // 2, "sandrun_api")
        return {self.jobs * (place + 1) // (total + 1): name for place, name in enumerate(names)}
