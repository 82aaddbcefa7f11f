"""Jobs on behalf of tool calls: submitted, waited for, and cancelled with the call."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import anyio

from sandrun_client import receipts
from sandrun_client.aio import AsyncSandrunClient
from sandrun_client.errors import SandrunError
from sandrun_client.mcp.pieces import IMAGE_BYTES, PIECE_BYTES
from sandrun_client.models import Image, JobOptions, Logs, OutputFile, Status, Submitted

# Of progress: seconds since the call, and a line for people. None where nobody asked for it.
Report = Callable[[float, str], Awaitable[None]]

CANCEL_SECONDS = 5.0  # for what is still done after a call was cancelled
MARGIN_SECONDS = 3.0  # of the time a call may take, for fetching what a job printed
FIRST_PROGRESS_SECONDS = 0.5  # then twice as long each time, up to the next
PROGRESS_SECONDS = 4.0
MIN_WAIT_SECONDS = 0.5  # between two questions, should the server not wait at all
MESSAGE_CHARACTERS = 200
MOST_CALLS = 50  # at once; each may hold a large file
# What models can see; a drawing in SVG is a text to them.
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


@dataclass(frozen=True)
class Program:
    """What a job shall run."""

    code: str
    files: dict[str, bytes]
    options: JobOptions


@dataclass(frozen=True)
class Found:
    """A job and what it has printed and left so far."""

    status: Status
    logs: Logs
    files: tuple[OutputFile, ...] = ()
    images: tuple[Image, ...] = ()
    kept: bool = True

    @property
    def shown_whole(self) -> bool:
        """Whether an answer holds everything of the job."""
        longest = max(len(self.logs.stdout_bytes), len(self.logs.stderr_bytes))
        return self.status.finished and not self.files and longest <= PIECE_BYTES


class Calls:
    """The calls that are being served. seconds: within which each is answered."""

    def __init__(self, client: AsyncSandrunClient, seconds: float, verify_with: str | None = None) -> None:
        self.client = client
        self.seconds = seconds
        margin = min(MARGIN_SECONDS, seconds / 4)
        self._run_seconds = seconds - margin
        self._fetch_seconds = seconds - margin / 4
        self._verify_with = verify_with
        self._scopes: set[anyio.CancelScope] = set()
        self._idle: anyio.Event | None = None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """A call that is being served. Raises SandrunError if it may not, or takes too long."""
        if self._idle is not None:
            raise SandrunError("The MCP server is stopping.")
        if len(self._scopes) >= MOST_CALLS:
            raise SandrunError(f"{MOST_CALLS} calls are being served already.")
        with anyio.move_on_after(self.seconds) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
                if self._idle is not None and not self._scopes:
                    self._idle.set()
        if scope.cancelled_caught:
            if self._idle is not None:
                raise SandrunError("The MCP server is stopping.")
            raise SandrunError(f"No answer came within {self.seconds:g} seconds.")

    async def aclose(self) -> None:
        """Cancel every call, and wait until each has cancelled its job, or five seconds."""
        self._idle = anyio.Event()
        for scope in self._scopes:
            scope.cancel()
        if not self._scopes:
            self._idle.set()
        with anyio.move_on_after(CANCEL_SECONDS, shield=True):
            await self._idle.wait()

    async def submit(self, program: Program) -> Submitted:
        """Submit it; a call that is cancelled leaves no job behind. Raises SandrunError."""
        scope = anyio.CancelScope(shield=True)
        outcome: list[Submitted | SandrunError] = []

        async def limit() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                # Only the answer tells which job to cancel, so it is waited for a little.
                scope.deadline = anyio.current_time() + CANCEL_SECONDS

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(limit)
                with scope:
                    outcome.append(await self._submitted(program))
                group.cancel_scope.cancel()
        except BaseException:
            if outcome and isinstance(outcome[0], Submitted):
                await self._cancel(outcome[0].job_id)
            raise
        if not outcome:
            raise SandrunError("The call was cancelled.")
        if isinstance(outcome[0], SandrunError):
            raise outcome[0]
        return outcome[0]

    async def _submitted(self, program: Program) -> Submitted | SandrunError:
        try:
            return await self.client.submit_code(program.code, files=program.files, **program.options)
        except SandrunError as error:
            return error

    async def execute(self, program: Program, report: Report | None) -> Found:
        """Run it and wait for it, as long as a call may take. Raises SandrunError."""
        started = anyio.current_time()
        job = await self.submit(program)
        async with self._cancelled_with_us(job.job_id):
            # Earlier than the call is cancelled for its time: a server that is slow shall not cost the job.
            left = started + self._fetch_seconds - anyio.current_time()
            try:
                with anyio.fail_after(left):
                    return await self._executed(job, started, report)
            except TimeoutError:
                raise SandrunError("The server takes too long to answer.") from None

    async def _executed(self, job: Submitted, started: float, report: Report | None) -> Found:
        if report is not None:
            await report(anyio.current_time() - started, f"submitted as {job.job_id}")
        status = await self.wait(job.job_id, started, self._run_seconds, report)
        if status.finished and self._verify_with is not None:
            receipt = receipts.check_status(status, self._verify_with)
            receipts.check_job(receipt, job.upload_sha256, job.manifest)
        found = await self.found(status)
        if found.shown_whole:
            with contextlib.suppress(SandrunError):  # it expires, then
                await self.client.cancel(job.job_id)
                return Found(status, found.logs, kept=False)
        return found

    async def wait(self, job_id: str, started: float, seconds: float, report: Report | None) -> Status:
        """The status of the finished job, or of one that still goes on so long after. Raises SandrunError."""
        deadline = started + min(seconds, self._run_seconds)
        tail = _Tail(self.client, job_id)
        most = self.seconds if report is None else FIRST_PROGRESS_SECONDS
        while True:
            asked = anyio.current_time()
            status = await self.client.get_status(job_id, wait=max(0.0, min(deadline - asked, most)))
            now = anyio.current_time()
            if status.finished or now >= deadline:
                return status
            if report is not None:
                await report(now - started, await tail.line(status, now - started))
                most = min(2 * most, PROGRESS_SECONDS)
            if now - asked < MIN_WAIT_SECONDS:
                await anyio.sleep(min(MIN_WAIT_SECONDS, deadline - now))

    async def found(self, status: Status) -> Found:
        """What there is of a job. Raises SandrunError."""
        logs = await self.client.get_logs(status.job_id)
        if not (status.finished and status.output_files):
            return Found(status, logs)
        files = await self.client.list_outputs(status.job_id)
        images: list[Image] = []
        left = IMAGE_BYTES
        for file in files:
            if file.mime_type in IMAGE_TYPES and file.size_bytes <= left:
                data = await self.client.read_file(status.job_id, file.path)
                images.append(Image(file.path, file.mime_type, data))
                left -= len(data)
        return Found(status, logs, files, tuple(images))

    @contextlib.asynccontextmanager
    async def _cancelled_with_us(self, job_id: str) -> AsyncIterator[None]:
        try:
            yield
        except SandrunError as error:
            raise SandrunError(f"{error} The job is {job_id}: check_job_status may tell more.") from error
        except BaseException:
            await self._cancel(job_id)
            raise

    async def _cancel(self, job_id: str) -> None:
        with anyio.move_on_after(CANCEL_SECONDS, shield=True), contextlib.suppress(SandrunError):
            await self.client.cancel(job_id)


class _Tail:
    """The last line that a job printed, for people who watch."""

    def __init__(self, client: AsyncSandrunClient, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._offset = 0
        self._last = ""

    async def line(self, status: Status, seconds: float) -> str:
        """A line for now. Raises SandrunError."""
        if status.queue_position:
            return f"waiting, at position {status.queue_position} in the queue"
        logs = await self._client.get_logs(self._job_id, offset=self._offset)
        self._offset = logs.next_offset
        lines = (logs.stdout or logs.stderr).rstrip().splitlines()
        if lines:
            self._last = "".join(char for char in lines[-1] if char.isprintable())[:MESSAGE_CHARACTERS]
        return self._last or f"{status.status} for {seconds:.0f} s"
