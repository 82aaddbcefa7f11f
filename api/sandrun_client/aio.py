"""The asynchronous client: the same methods, awaited."""

import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from sandrun_client import connecting, jobs, live, mapping, outputs, runs, servers
from sandrun_client.exchange import Policy, Progress, Waiting, log_waiting
from sandrun_client.http_httpx import AsyncDriver
from sandrun_client.jobs import Content
from sandrun_client.mapping import Batch, OnResult, Outcome
from sandrun_client.models import (
    Connection,
    JobOptions,
    Logs,
    Output,
    OutputFile,
    Result,
    Status,
    Stream,
    Submitted,
)
from sandrun_client.runs import Listener
from sandrun_client.server_models import Environments, Stats


class AsyncSandrunClient:
    """As SandrunClient, for asyncio and trio. Close it, or use `async with`.

    retries: how often a request is sent again when that is safe. max_retry_wait: the longest `Retry-After`,
    in seconds, that is waited for. timeout: seconds that the server may be silent. verify_with: the worker
    id whose receipts are demanded and checked for everything it ran. on_wait: called with each Waiting that
    begins, instead of logging it. transport: another way to reach the server (httpx). Raises SandrunError
    for what is not an address.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        verify_with: str | None = None,
        retries: int = 4,
        max_retry_wait: float = 60.0,
        timeout: float = 30.0,
        tls: ssl.SSLContext | bool = True,
        headers: Mapping[str, str] | None = None,
        on_wait: Callable[[Waiting], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = connecting.base_url(url)
        options = connecting.http_options(self.url, timeout, tls, headers or {})
        self._http = httpx.AsyncClient(**options, transport=transport)
        self._driver = AsyncDriver(self._http)
        self._policy = Policy(retries, max_retry_wait, verify_with, on_wait=on_wait or log_waiting)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def run(
        self,
        code: str,
        *,
        files: Mapping[str, Content] | None = None,
        on_stdout: Listener | None = None,
        on_stderr: Listener | None = None,
        **options: Unpack[JobOptions],
    ) -> Result:
        """Run code and wait for it; given up, it cancels the job.

        `files` are more files by path: text, bytes, or paths of this machine. on_stdout and on_stderr are
        called with text as the program prints it. A program that fails is a result too. Raises SandrunError.
        """
        listeners: dict[Stream, Listener | None] = {"stdout": on_stdout, "stderr": on_stderr}
        return await self._driver.run(runs.run(self._policy, code, files or {}, options, listeners))

    async def map(
        self,
        programs: Iterable[str | Mapping[str, Any]],
        *,
        concurrency: int = 2,
        on_result: OnResult | None = None,
        **options: Unpack[JobOptions],
    ) -> list[Outcome]:
        """Run many programs, some at a time: in their order, the Result of each, or the SandrunError it met.

        A program is code, or keywords of `run` with `code` among them. on_result is called with a program's
        number and outcome as soon as it is known. After a RateLimited or ConnectionFailed the others are not
        tried and share it. Raises InvalidUpload for what is no program.
        """
        batch = Batch(programs, options, on_result)
        return await mapping.run_all_async(self.run, batch, concurrency)

    async def run_and_wait(
        self,
        *,
        code: str | bytes | None = None,
        directory: str | os.PathLike[str] | None = None,
        entrypoint: str | None = None,
        files: Mapping[str, Content] | None = None,
        exclude: Iterable[str] = (),
        wait_timeout: float | None = None,
        progress: Progress | None = None,
        **options: Unpack[JobOptions],
    ) -> Result:
        """Submit code or a folder, wait for it, and fetch what it printed; its files stay to be downloaded.

        Interrupted, it cancels the job. wait_timeout is in seconds; after it WaitTimeout is raised and the
        job goes on. Raises SandrunError.
        """
        flow = runs.run_and_wait(
            self._policy,
            code=code,
            directory=directory,
            entrypoint=entrypoint,
            files=files or {},
            exclude=exclude,
            options=options,
            wait_timeout=wait_timeout,
            progress=progress,
        )
        return await self._driver.run(flow)

    async def submit_code(
        self,
        code: str | bytes,
        *,
        name: str | None = None,
        files: Mapping[str, Content] | None = None,
        progress: Progress | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Submitted:
        """Submit a program, under a name that tells its interpreter, with more files by path.

        Without a name the interpreter is Python, or `interpreter`. Raises SandrunError.
        """
        flow = jobs.submit_code(
            self._policy,
            code=code,
            files=files or {},
            name=name,
            options=options,
            progress=progress,
            idempotency_key=idempotency_key,
        )
        return await self._driver.run(flow)

    async def submit_directory(
        self,
        directory: str | os.PathLike[str],
        *,
        entrypoint: str | None = None,
        exclude: Iterable[str] = (),
        progress: Progress | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Submitted:
        """Submit a folder without what its .gitignore and .sandrunignore files and `exclude` name.

        Without an entrypoint the job.json in it says how to run it. Raises SandrunError.
        """
        flow = jobs.submit_directory(
            self._policy,
            folder=directory,
            entrypoint=entrypoint,
            exclude=exclude,
            options=options,
            progress=progress,
            idempotency_key=idempotency_key,
        )
        return await self._driver.run(flow)

    async def get_status(self, job_id: str, *, wait: float = 0.0) -> Status:
        """Where the job is; with `wait`, at most 60 seconds, once it has finished. Raises SandrunError."""
        return await self._driver.run(jobs.get_status(self._policy, job_id, wait))

    async def wait(self, job_id: str, *, wait_timeout: float | None = None) -> Status:
        """The status of the finished job. Raises WaitTimeout after `wait_timeout` seconds, SandrunError."""
        return await self._driver.run(jobs.wait(self._policy, job_id, wait_timeout))

    async def get_logs(self, job_id: str, *, offset: int = 0) -> Logs:
        """What the job has printed so far, or since an offset (`Logs.next_offset`). Raises SandrunError."""
        return await self._driver.run(jobs.get_logs(self._policy, job_id, offset))

    def stream_logs(self, job_id: str, *, offset: int = 0) -> AsyncIterator[Output]:
        """What the job prints, as it prints it, until it is finished; goes on where a connection broke.

        offset is an `Output.sequence` to go on after. Raises SandrunError.
        """
        return self._driver.iterate(live.stream_logs(self._policy, job_id, offset))

    def follow(self, job_id: str, *, offset: int = 0) -> AsyncIterator[Output | Status]:
        """The same, with the job's final status as the last item. Raises SandrunError."""
        return self._driver.iterate(live.follow(self._policy, job_id, offset))

    async def list_outputs(self, job_id: str) -> tuple[OutputFile, ...]:
        """The files that a finished job left. Raises Conflict before it is finished, SandrunError."""
        return await self._driver.run(outputs.list_outputs(self._policy, job_id))

    async def read_file(self, job_id: str, path: str, *, progress: Progress | None = None) -> bytes:
        """One file's bytes. Raises SandrunError."""
        return await self._driver.run(outputs.read_file(self._policy, job_id, path, progress))

    async def download_file(
        self,
        job_id: str,
        path: str,
        target: str | os.PathLike[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> Path:
        """Save one file: as target, into a folder, or under its own name here. Raises SandrunError."""
        return await self._driver.run(outputs.download_file(self._policy, job_id, path, target, progress))

    async def download_all(
        self,
        job_id: str,
        folder: str | os.PathLike[str] = ".",
        *,
        keep: bool = False,
        progress: Progress | None = None,
    ) -> tuple[Path, ...]:
        """Save every file under the folder; then the job is deleted, unless `keep`. Raises SandrunError."""
        return await self._driver.run(outputs.download_all(self._policy, job_id, folder, keep, progress))

    async def cancel(self, job_id: str) -> None:
        """Cancel the job if it is not finished, and delete everything of it. Raises SandrunError."""
        return await self._driver.run(jobs.cancel(self._policy, job_id))

    async def test_connection(self) -> Connection:
        """Whether a healthy server answers and, with `verify_with`, that worker. Raises SandrunError."""
        return await self._driver.run(servers.test_connection(self._policy, self.url))

    async def get_stats(self) -> Stats:
        """What this address has used and may use, and how busy the server is. Raises SandrunError."""
        return await self._driver.run(servers.get_stats(self._policy))

    async def list_environments(self) -> Environments:
        """The environments a job may name, with their packages. Raises SandrunError."""
        return await self._driver.run(servers.list_environments(self._policy))
