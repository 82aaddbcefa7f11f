"""A fake of the executor's client, with which a test scripts what happens to each job."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandrun_shared.executor_client import Connection, ExecutorClient
from sandrun_shared.jobs import Outcome, Verdict
from sandrun_shared.protocol import (
    Description,
    Environment,
    Event,
    Execute,
    Finished,
    Interpreter,
    Started,
    Usage,
)


class ScriptedConnection(Connection):
    """One job's connection."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.cancelled = False

    def say(self, event: Event) -> None:
        """Send an event."""
        self._events.put_nowait(event)

    def uses(self, cpu_seconds: float) -> None:
        """Report the job's usage so far."""
        self.say(Usage(cpu_seconds, 1 << 20))

    def finish(
        self, cpu_seconds: float = 0.0, verdict: Verdict = Verdict.ok, setup_cpu_seconds: float = 0.0
    ) -> None:
        """Finish the job."""
        outcome = Outcome(verdict, 0, cpu_seconds=cpu_seconds, setup_cpu_seconds=setup_cpu_seconds)
        self.say(Finished(outcome))

    async def receive(self) -> tuple[Event, list[int]]:
        """Receive the events in order."""
        return await self._events.get(), []


class ScriptedExecutor(ExecutorClient):
    """Runs any number of jobs; `running` are their connections by id, in order of their start.

    Without starts_jobs it reports nothing about a job by itself.
    """

    def __init__(self, slots: int = 8) -> None:
        super().__init__("")
        self.slots = slots
        self.starts_jobs = True
        self.running: dict[str, ScriptedConnection] = {}
        self.started: list[str] = []
        self.gpus: dict[str, int | None] = {}  # which device a job was given
        self.installs: set[str] = set()  # jobs that are being installed only

    async def describe(self, *, try_sandbox: bool = False) -> Description:
        """One interpreter, one environment."""
        return Description(
            slots=self.slots,
            running=len(self.running),
            interpreters=(Interpreter("python3", "1.0"),),
            environments=(Environment("default", "", (), ("python3",)),),
        )

    @asynccontextmanager
    async def execute(self, request: Execute, _: tuple[int, ...]) -> AsyncIterator[Connection]:
        """Pretend to start a job."""
        self.started.append(request.job_id)
        self.gpus[request.job_id] = request.gpu
        connection = self.running[request.job_id] = ScriptedConnection()
        if request.install_only:
            self.installs.add(request.job_id)
        elif self.starts_jobs:
            connection.say(Started(0.001))
        try:
            yield connection
        except asyncio.CancelledError:
            connection.cancelled = True
            raise
        finally:
            self.installs.discard(request.job_id)
            del self.running[request.job_id]
