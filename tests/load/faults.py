"""Kills a daemon of the running service when its turn has come, and knows whether one is away."""

import asyncio
import os
import signal
from typing import NamedTuple

import httpx

from support import machine
from support.service import Service

HEALTH_SECONDS = 60.0


class Epoch(NamedTuple):
    """What a client remembers of the moment of a request."""

    executor_kills: int
    api_kills: int
    calm: bool
    api_is_there: bool


class Faults:
    """The daemons' deaths so far. `calm` is set while both are there."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.calm = asyncio.Event()
        self.calm.set()
        self._api_is_there = True
        self.executor_kills = 0
        self.api_kills = 0
        self.life = 0  # of the api; grows once the one before is gone
        self.logs: list[str] = []  # of services that ended

    async def kill(self, name: str) -> None:
        """SIGKILL the daemon, and wait until both are there again. Raises AssertionError."""
        self.calm.clear()
        pid = await asyncio.to_thread(self._service.daemon, name)
        if name == "sandrun_api":
            self.api_kills += 1
            self._api_is_there = False
            await self._restart(pid)
            self._api_is_there = True
        else:
            self.executor_kills += 1
            _kill(pid)
            await asyncio.to_thread(self._until_replaced, pid)
        self.calm.set()

    async def _restart(self, api: int) -> None:
        """`sandrun up` ends when the api does, and takes along whatever it started."""
        inside = await asyncio.to_thread(machine.descendants, self._service.pid)
        _kill(api)
        assert await asyncio.to_thread(self._service.wait) == 1
        self.life += 1
        self.logs.append(self._service.log.read_text())
        assert not inside & machine.processes().keys(), "a service that ended left processes"
        assert not machine.of_jobs(self._service)
        assert not machine.cgroups(self._service)
        await asyncio.to_thread(self._service.start)

    def _until_replaced(self, pid: int) -> None:
        def answers() -> bool:
            try:
                return self._service.client.get("/health").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        def replaced() -> bool:
            try:
                return self._service.daemon("sandrun_executor") != pid and answers()
            except AssertionError:
                return False

        assert machine.eventually(replaced, HEALTH_SECONDS), "the executor did not come back"

    def epoch(self) -> Epoch:
        """This moment."""
        return Epoch(self.executor_kills, self.api_kills, self.calm.is_set(), self._api_is_there)


def _kill(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
