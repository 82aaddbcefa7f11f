"""One client's requests: what a fault of ours explains is tried again or told as lost, all else is a failure."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
from websockets.exceptions import WebSocketException

from load.faults import Epoch, Faults
from load.plan import Task
from support import machine

ATTEMPTS = 50
WAIT_SECONDS = 60
GONE_SECONDS = 60.0
BROKEN = (httpx.TransportError, WebSocketException, OSError)
PADDING = b"#" * (256 << 10)


class Lost(Exception):
    """The job went with the api that had accepted it; asked for, it is unknown."""


@dataclass(frozen=True)
class Accepted:
    """A job the service has taken; epoch is that of the faults when it was first sent."""

    job_id: str
    task: Task
    epoch: Epoch
    life: int


class Client:
    """Speaks to the service over separate connections."""

    def __init__(self, http: httpx.AsyncClient, faults: Faults) -> None:
        self.http = http
        self.faults = faults

    def upload(self, task: Task, *, padded: bool = False) -> httpx.Request:
        """The submission of a task."""
        files = [("files", ("main.py", task.code.encode()))]
        if padded:
            files.append(("files", ("padding", PADDING)))
        manifest = {"entrypoint": "main.py", "timeout": 120}
        return self.http.build_request(
            "POST",
            "/submit",
            files=files,
            data={"manifest": json.dumps(manifest)},
            headers={"Idempotency-Key": task.key},
        )

    async def submit(self, task: Task, *, padded: bool = False, since: Epoch | None = None) -> Accepted:
        """Have the task accepted, however often a fault comes between. Raises AssertionError.

        since is the epoch in which it was sent before: what is accepted now may be the job of that time.
        """
        since = since or self.faults.epoch()
        for _ in range(ATTEMPTS):
            epoch = self.faults.epoch()
            try:
                answer = await self.http.send(self.upload(task, padded=padded))
            except httpx.TransportError as error:
                await self.excuse_api(epoch, error)
                continue
            if answer.status_code == httpx.codes.OK:
                return Accepted(answer.json()["job_id"], task, since, self.faults.life)
            await self.excuse_refusal(epoch, answer)
        raise AssertionError(f"job {task.number} is never accepted")

    async def ask(self, accepted: Accepted, method: str, path: str, **more: Any) -> httpx.Response:
        """The answer to a request about an accepted job, which must be there. Raises Lost, AssertionError."""
        for _ in range(ATTEMPTS):
            epoch = self.faults.epoch()
            try:
                answer = await self.http.request(method, path.format(accepted.job_id), **more)
            except httpx.TransportError as error:
                await self.excuse_api(epoch, error)
                continue
            if answer.status_code == httpx.codes.NOT_FOUND and self.faults.life != accepted.life:
                raise Lost
            assert answer.is_success, f"{accepted}: {method} {path}: {answer.status_code} {answer.text}"
            return answer
        raise AssertionError(f"{accepted} is never answered")

    async def finished(self, accepted: Accepted) -> dict[str, Any]:
        """The last status of the job. Raises Lost, AssertionError for an end that nothing explains."""
        for _ in range(ATTEMPTS):
            status = (await self.ask(accepted, "GET", "/status/{}", params={"wait": WAIT_SECONDS})).json()
            if status["status"] in ("completed", "failed"):
                self.check_verdict(accepted.epoch, status)
                return dict(status)
        raise AssertionError(f"{accepted} never ends")

    async def gone(self, accepted: Accepted) -> None:
        """Wait until the job is unknown. Raises AssertionError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GONE_SECONDS
        while True:
            epoch = self.faults.epoch()
            try:
                answer = await self.http.get(f"/status/{accepted.job_id}")
            except httpx.TransportError as error:
                await self.excuse_api(epoch, error)
                continue
            if answer.status_code == httpx.codes.NOT_FOUND:
                return
            assert loop.time() < deadline, f"{accepted} is still there: {answer.text}"
            await asyncio.to_thread(machine.pause)

    @contextlib.asynccontextmanager
    async def connected(self, accepted: Accepted) -> AsyncIterator[None]:
        """A body that reads a stream: when that breaks, the job must be lost with the api. Raises Lost."""
        epoch = self.faults.epoch()
        try:
            yield
        except BROKEN as error:
            await self.excuse_api(epoch, error)
            await self.ask(accepted, "GET", "/status/{}")
            raise

    def check_verdict(self, epoch: Epoch, status: dict[str, Any]) -> None:
        """Ok, or lost by an executor that was killed since the epoch. Raises AssertionError."""
        killed = self.faults.executor_kills > epoch.executor_kills or not epoch.calm
        assert status["verdict"] == "ok" or (status["verdict"] == "executor_lost" and killed), status

    async def excuse_refusal(self, epoch: Epoch, answer: httpx.Response) -> None:
        """A 503 is right while a daemon is away; wait until it is not. Raises AssertionError."""
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, f"{answer.status_code} {answer.text}"
        disturbed = self.faults.epoch() != epoch or not epoch.calm
        assert disturbed, f"a refusal without a cause: {answer.text}"
        await self.faults.calm.wait()

    async def excuse_api(self, epoch: Epoch, error: Exception) -> None:
        """A broken connection is right when the api was killed since; wait until it is there again.

        Raises AssertionError. epoch is that of the request.
        """
        if self.faults.api_kills == epoch.api_kills and epoch.api_is_there:
            raise AssertionError(f"a connection broke without a cause: {error!r}") from error
        await self.faults.calm.wait()
