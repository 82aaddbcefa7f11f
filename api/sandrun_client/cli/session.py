"""One run from the upload to the exit status, cancelled at the server when it is given up here."""

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandrun_client import jobs, live, outcomes, runs
from sandrun_client.cli import terminal
from sandrun_client.cli.programs import Program
from sandrun_client.cli.signals import GRACE_SECONDS, Signals
from sandrun_client.errors import ConnectionFailed, SandrunError
from sandrun_client.exchange import Flow, Policy, Request, Send, Waiting, exchange
from sandrun_client.models import Output, Status, Submitted

# A server keeps at least this much of a job's output, so that less is surely whole.
LEAST_KEPT = 1 << 20


@dataclass(frozen=True)
class Run:
    """How a program is run: where its files go, what is printed, whether the job is kept."""

    program: Program
    folder: Path | None
    json: bool
    keep: bool

    def once(self, policy: Policy, signals: Signals) -> Flow[int]:
        """Run it and give the exit status. Raises SandrunError; BrokenPipeError when nobody reads."""
        job = yield from submitted(self.program, policy, signals, shown=not self.json)
        printed = Printed(self.json)
        try:
            signals.check()
            if job.queue_position:
                terminal.say(f"waiting, at position {job.queue_position} in the queue; Ctrl-C stops")
            with terminal.Patience(self.program.installing):
                status = yield from runs.heard(live.stream_logs(policy, job.job_id), printed.hear)
            if policy.verify_with is not None:
                from sandrun_client import receipts  # noqa: PLC0415

                receipt = receipts.check_status(status, policy.verify_with)
                receipts.check_job(receipt, job.upload_sha256, job.manifest)
            return (yield from self._end(policy, status, printed))
        except ConnectionFailed:
            terminal.say(f"the job may go on: sandrun logs -f {job.job_id}")
            raise
        except (SandrunError, GeneratorExit):
            raise
        except BaseException:
            yield from _cancelled(policy, job.job_id)
            raise

    def _end(self, policy: Policy, status: Status, printed: "Printed") -> Flow[int]:
        saved: tuple[Path, ...] = ()
        truncated = yield from _truncated(policy, status, printed)
        if status.output_files and self.folder is not None:
            from sandrun_client import outputs  # noqa: PLC0415

            with terminal.transfer("Downloading", shown=not self.json) as progress:
                saved = yield from outputs.download_all(
                    policy, status.job_id, self.folder, self.keep, progress
                )
            terminal.say(f"saved {len(saved)} file{'s'[: len(saved) != 1]} in {self.folder}")
        elif not self.keep and not status.output_files:
            yield from _forgotten(policy, status.job_id)
        elif not self.json:
            names = ", ".join(file.path for file in status.output_files[:3])
            more = len(status.output_files) - 3
            what = f"left {names}{f' and {more} more' if more > 0 else ''}; " if names else ""
            terminal.say(f"{what}sandrun download {status.job_id}")
        if self.json:
            terminal.print_json(_document(status, printed, saved, truncated is not None))
        elif (text := outcomes.describe_outcome(status.raw)) is not None:
            terminal.complain(f"{self.program.title} {text}")
        if truncated is not None:
            terminal.complain(truncated)
        return terminal.exit_status(status.verdict, status.exit_code)


class Printed:
    """What the program prints: passed on, or kept for the JSON document; and counted."""

    def __init__(self, kept: bool) -> None:
        self._kept = kept
        self.bytes = 0
        self.data = {"stdout": bytearray(), "stderr": bytearray()}

    def hear(self, item: Output) -> None:
        """Take a piece. Raises BrokenPipeError."""
        terminal.Patience.end()
        self.bytes += len(item.data)
        if self._kept:
            self.data[item.stream] += item.data
        else:
            terminal.write(item.stream, item.data)


def submitted(program: Program, policy: Policy, signals: Signals, *, shown: bool) -> Flow[Submitted]:
    """Submit it; a signal after the end of the upload waits for the answer, which alone names the job."""
    with (
        terminal.Transfer("Uploading", shown=shown) as bar,
        terminal.Patience("waiting for the server's answer; Ctrl-C stops"),
    ):

        def told(waiting: Waiting) -> None:
            bar.complete = False
            terminal.Patience.end()
            policy.on_wait(waiting)

        signals.deferring = lambda: bar.complete
        try:
            return (yield from program.submit(dataclasses.replace(policy, on_wait=told), bar.progress))
        except SandrunError:
            signals.check()  # there is no job
            raise
        finally:
            signals.deferring = lambda: False


def _truncated(policy: Policy, status: Status, printed: Printed) -> Flow[str | None]:
    """What to tell when the server dropped output, else None."""
    known = status.raw.get("truncated")
    if known is False or (known is None and printed.bytes < LEAST_KEPT):
        return None
    logs = yield from jobs.get_logs(policy, status.job_id, printed.bytes)  # after what is there
    if not logs.truncated:
        return None
    size = f"{terminal.size_text(logs.printed_bytes)}" if logs.printed_bytes else "more than that"
    return (
        f"OUTPUT CUT: this is the first {terminal.size_text(printed.bytes)}; the program printed {size}, and "
        "the rest is lost. Let it write to a file instead."
    )


def _forgotten(policy: Policy, job_id: str) -> Flow[None]:
    """Delete a job that left nothing; if that fails it expires by itself."""
    try:
        yield from jobs.cancel(dataclasses.replace(policy, retries=0), job_id)
    except SandrunError:
        return


def _cancelled(policy: Policy, job_id: str) -> Flow[None]:
    request = Request("DELETE", jobs.job_path("jobs", job_id), read_seconds=GRACE_SECONDS)
    try:
        yield from exchange(dataclasses.replace(policy, retries=0), Send(request))
    except SandrunError as error:
        terminal.complain(f"the job {job_id} could not be cancelled: {error}")
    else:
        terminal.say("cancelled")


def _document(status: Status, printed: Printed, saved: tuple[Path, ...], truncated: bool) -> dict[str, Any]:
    return {
        "job_id": status.job_id,
        "status": status.status,
        "verdict": status.verdict,
        "exit_code": status.exit_code,
        "signal": status.signal,
        "detail": status.detail,
        **{name: data.decode("utf-8", "replace") for name, data in printed.data.items()},
        "truncated": truncated,
        "metrics": asdict(status.metrics),
        "files": [asdict(file) for file in status.output_files],
        "saved": [str(path) for path in saved],
        "receipt": status.receipt,
    }
