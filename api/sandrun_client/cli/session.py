"""One run from the upload to the exit status, cancelled at the server when it is given up here."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio

from sandrun_client import outcomes, receipts
from sandrun_client.aio import AsyncSandrunClient
from sandrun_client.cli import terminal
from sandrun_client.cli.programs import Program
from sandrun_client.errors import ConnectionFailed, SandrunError
from sandrun_client.models import Status, Submitted

T = TypeVar("T")

CANCEL_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """How a program is run: where its files go, what is printed, whether the job is kept."""

    program: Program
    folder: Path | None
    json: bool
    keep: bool
    verify_with: str | None = None

    async def once(self, client: AsyncSandrunClient) -> int:
        """Run it and give the exit status. Raises SandrunError; BrokenPipeError when nobody reads."""
        job = await self._submit(client)
        async with _cancelled_with_us(client, job.job_id):
            if job.queue_position:
                terminal.say(f"waiting, at position {job.queue_position} in the queue")
            printed = {"stdout": bytearray(), "stderr": bytearray()}
            status: Status | None = None
            async with contextlib.aclosing(closable(client.follow(job.job_id))) as items:
                async for item in items:
                    if isinstance(item, Status):
                        status = item
                    elif self.json:
                        printed[item.stream] += item.data
                    else:
                        terminal.write(item.stream, item.data)
            if status is None:
                raise SandrunError("The live output ended without saying how the job ended.")
            if self.verify_with is not None:
                receipt = receipts.check_status(status, self.verify_with)
                receipts.check_job(receipt, job.upload_sha256, job.manifest)
            return await self._end(client, status, printed)

    async def _submit(self, client: AsyncSandrunClient) -> Submitted:
        with terminal.Transfer("Uploading", shown=not self.json) as bar:
            task = asyncio.ensure_future(self.program.submit(client, bar.progress))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                # Cut before its end, an upload makes no job. After that only the answer tells which one.
                job = None
                if bar.complete:
                    with contextlib.suppress(SandrunError, TimeoutError):
                        job = await asyncio.wait_for(task, CANCEL_SECONDS)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                if job is not None:
                    await _cancel(client, job.job_id)
                raise

    async def _end(self, client: AsyncSandrunClient, status: Status, printed: dict[str, bytearray]) -> int:
        saved: tuple[Path, ...] = ()
        if status.output_files and self.folder is not None:
            with terminal.transfer("Downloading", shown=not self.json) as progress:
                saved = await client.download_all(
                    status.job_id, self.folder, keep=self.keep, progress=progress
                )
            terminal.say(f"saved {len(saved)} file{'s'[: len(saved) != 1]} in {self.folder}")
        elif not self.keep and not status.output_files:
            with contextlib.suppress(SandrunError):
                await client.cancel(status.job_id)
        elif not self.json:
            names = ", ".join(file.path for file in status.output_files[:3])
            more = len(status.output_files) - 3
            what = f"left {names}{f' and {more} more' if more > 0 else ''}; " if names else ""
            terminal.say(f"{what}sandrun download {status.job_id}")
        if self.json:
            terminal.print_json(_document(status, printed, saved))
        elif (text := outcomes.describe_outcome(status.raw)) is not None:
            terminal.complain(f"{self.program.title} {text}")
        return terminal.exit_status(status.verdict, status.exit_code)


def closable(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """An iterator that is a generator, as one. Raises TypeError for another."""
    if not isinstance(items, AsyncGenerator):
        raise TypeError("not a generator")
    return items


def interruptible(main: Callable[[], Awaitable[int]]) -> int:
    """Run it in an event loop, where SIGINT, SIGTERM and SIGHUP cancel it; 128+n for the signal."""
    received: list[int] = []

    async def guarded() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int) -> None:
            received.append(number)
            if len(received) == 1 and task is not None:
                task.cancel()
            else:  # asked twice: whatever is still being tidied up is left
                raise KeyboardInterrupt

        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(NotImplementedError):
                    loop.add_signal_handler(number, stop, number)
        return await main()

    try:
        return asyncio.run(guarded())
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 128 + (received[0] if received else signal.SIGINT)


@contextlib.asynccontextmanager
async def _cancelled_with_us(client: AsyncSandrunClient, job_id: str) -> AsyncIterator[None]:
    try:
        yield
    except ConnectionFailed:
        terminal.say(f"the job may go on: sandrun logs -f {job_id}")
        raise
    except SandrunError:
        raise
    except BaseException:
        await _cancel(client, job_id)
        raise


async def _cancel(client: AsyncSandrunClient, job_id: str) -> None:
    with anyio.move_on_after(CANCEL_SECONDS, shield=True) as scope:
        try:
            await client.cancel(job_id)
        except SandrunError as error:
            terminal.complain(f"the job {job_id} could not be cancelled: {error}")
        else:
            terminal.say("cancelled")
    if scope.cancelled_caught:
        terminal.complain(f"the job {job_id} could not be cancelled: the server does not answer")


def _document(status: Status, printed: dict[str, bytearray], saved: tuple[Path, ...]) -> dict[str, Any]:
    return {
        "job_id": status.job_id,
        "status": status.status,
        "verdict": status.verdict,
        "exit_code": status.exit_code,
        "signal": status.signal,
        "detail": status.detail,
        **{name: data.decode("utf-8", "replace") for name, data in printed.items()},
        "metrics": asdict(status.metrics),
        "files": [asdict(file) for file in status.output_files],
        "saved": [str(path) for path in saved],
        "receipt": status.receipt,
    }
