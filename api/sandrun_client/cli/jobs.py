"""Commands about jobs: submit, status, logs, outputs, cancel."""

from dataclasses import asdict
from typing import Any

import click

from sandrun_client import outcomes
from sandrun_client.cli import terminal
from sandrun_client.cli.options import Server, job_options, server_options
from sandrun_client.cli.programs import Asked, program_of
from sandrun_client.cli.session import submitted
from sandrun_client.cli.signals import Signals, interruptible
from sandrun_client.errors import SandrunError
from sandrun_client.models import Status
from sandrun_shared import commandline


@click.command(cls=commandline.Command)
@click.argument("file", required=False, type=click.Path(), metavar="DIR|FILE|-")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@job_options
@server_options
def submit(*, server: Server, asked: Asked, job: dict[str, Any]) -> int:
    """Submit a folder, a file or CODE, and print the job's id without waiting for it."""
    program = program_of(asked, job)

    def main(signals: Signals) -> int:
        with server.driver() as driver:
            flow = submitted(program, server.policy(), signals, shown=not server.json)
            job = driver.run(flow)
        if server.json:
            terminal.print_json({"job_id": job.job_id, "queue_position": job.queue_position})
        else:
            print(job.job_id)
        return 0

    return interruptible(main)


@click.command(cls=commandline.Command)
@click.argument("job_id")
@click.option("--wait", is_flag=True, help="Wait until the job is finished.")
@server_options
def status(server: Server, job_id: str, wait: bool) -> int:
    """Say where a job is and how it ended."""
    text = f"waiting for the job {job_id} to be finished; Ctrl-C stops" if wait else ""
    with server.client() as client, terminal.Patience(text):
        found = client.wait(job_id) if wait else client.get_status(job_id)
    if server.json:
        terminal.print_json(dict(found.raw))
    else:
        _print_status(found)
    return 0


@click.command(cls=commandline.Command)
@click.argument("job_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is finished.")
@server_options
def logs(server: Server, job_id: str, follow: bool) -> int:
    """Print what a job printed: to standard output and standard error, as it did."""
    with server.client() as client:
        if follow:
            for item in client.stream_logs(job_id):
                if server.json:
                    terminal.print_json({"stream": item.stream, "sequence": item.sequence, "data": item.text})
                else:
                    terminal.write(item.stream, item.data)
            return 0
        found = client.get_logs(job_id)
    if server.json:
        terminal.print_json({"stdout": found.stdout, "stderr": found.stderr, "truncated": found.truncated})
        return 0
    terminal.write("stdout", found.stdout_bytes)
    terminal.write("stderr", found.stderr_bytes)
    if found.truncated:
        terminal.complain("OUTPUT CUT: this is not all; the job printed more than the server keeps")
    return 0


@click.command(cls=commandline.Command)
@click.argument("job_id")
@server_options
def outputs(server: Server, job_id: str) -> int:
    """List the files that a job left."""
    with server.client() as client:
        files = client.list_outputs(job_id)
    if server.json:
        terminal.print_json([asdict(file) for file in files])
    else:
        rows = [(terminal.size_text(file.size_bytes), file.mime_type, file.path) for file in files]
        terminal.print_table(("SIZE", "TYPE", "PATH"), rows)
    return 0


@click.command(cls=commandline.Command)
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...")
@server_options
def cancel(server: Server, job_ids: tuple[str, ...]) -> int:
    """Cancel jobs that are not finished, and delete everything of them."""
    failures: list[SandrunError] = []
    with server.client() as client:
        for job_id in job_ids:
            try:
                client.cancel(job_id)
            except SandrunError as error:
                failures.append(error)
                if len(job_ids) > 1:
                    terminal.complain(f"{job_id}: {error}")
    if failures and len(job_ids) == 1:
        raise failures[0]
    if server.json:
        terminal.print_json({"cancelled": len(job_ids) - len(failures)})
    return terminal.OWN_FAILURE if failures else 0


def _print_status(found: Status) -> None:
    rows = [("job", found.job_id), ("status", found.status)]
    if found.queue_position is not None:
        rows.append(("queue position", str(found.queue_position)))
    if found.verdict is not None:
        rows.append(("verdict", found.verdict))
    if found.exit_code is not None:
        rows.append(("exit code", str(found.exit_code)))
    if (text := outcomes.describe_outcome(found.raw)) is not None:
        rows.append(("because", f"it {text}"))
    rows += [
        ("ran", f"{found.metrics.runtime:.3f} s"),
        ("cpu", f"{found.metrics.cpu_seconds:.3f} s"),
        ("memory", f"{found.metrics.memory_mb:.1f} MB"),
        ("files", str(len(found.output_files))),
    ]
    if found.raw.get("expires_at"):
        rows.append(("expires", str(found.raw["expires_at"])))
    for name, value in rows:
        print(f"{name + ':':16}{terminal.printable(value)}")
