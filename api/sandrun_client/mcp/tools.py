"""The tools: what each takes and answers, and what it does at the server."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from mcp_types import CallToolResult, ToolAnnotations
from mcp_types import Tool as ListedTool
from pydantic import BaseModel, ValidationError

from sandrun_client.errors import UnknownJob
from sandrun_client.mcp import answers, files, results
from sandrun_client.mcp import arguments as taken
from sandrun_client.mcp.calls import Calls, Program, Report
from sandrun_client.mcp.pieces import piece
from sandrun_client.mcp.schemas import schema_of
from sandrun_shared import languages

MOST_PACKAGES = 200  # of an environment that are named

Handler = Callable[[Calls, Any, Report | None], Awaitable[CallToolResult]]


@dataclass(frozen=True)
class Tool:
    """A tool, and the function behind it; the handler gets arguments of the type that it takes."""

    name: str
    title: str
    description: str
    takes: type[taken.Arguments]
    gives: type[BaseModel]
    handler: Handler
    reads_only: bool
    destroys: bool = False
    idempotent: bool = False

    @functools.cached_property
    def listed(self) -> ListedTool:
        """As clients see it."""
        return ListedTool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=schema_of(self.takes),
            output_schema=schema_of(self.gives, "serialization"),
            annotations=ToolAnnotations(
                title=self.title,
                read_only_hint=self.reads_only,
                destructive_hint=self.destroys,
                idempotent_hint=self.idempotent or self.reads_only,
                open_world_hint=False,  # a job reaches no network
            ),
        )

    async def call(self, calls: Calls, given: dict[str, Any], report: Report | None) -> CallToolResult:
        """The result of a call; arguments that do not fit are said to the model. Raises SandrunError."""
        try:
            arguments = self.takes.model_validate(given)
        except ValidationError as error:
            faults = [
                f"{'.'.join(str(part) for part in fault['loc']) or 'arguments'}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            ]
            return results.failure("\n".join(["these arguments do not fit.", *faults]))
        return await self.handler(calls, arguments, report)


def _program(asked: taken.Execute, language: str) -> Program:
    return Program(asked.code, asked.sources(), asked.options(languages.canonical(language)))


def _executes(language: str) -> Handler:
    async def execute(calls: Calls, asked: taken.Execute, report: Report | None) -> CallToolResult:
        return results.of_job(await calls.execute(_program(asked, language), report))

    return execute


async def _run_code(calls: Calls, asked: taken.RunCode, report: Report | None) -> CallToolResult:
    return results.of_job(await calls.execute(_program(asked, asked.language), report))


async def _submit_job(calls: Calls, asked: taken.SubmitJob, _: Report | None) -> CallToolResult:
    job = await calls.submit(_program(asked, asked.language))
    answer = answers.Submitted(job_id=job.job_id, status="queued", queue_position=job.queue_position)
    return results.result(
        answer, f'Submitted as {job.job_id}. check_job_status(job_id="{job.job_id}", wait=20) waits for it.'
    )


async def _check_job_status(
    calls: Calls, asked: taken.CheckJobStatus, report: Report | None
) -> CallToolResult:
    status = await calls.wait(asked.job_id, anyio.current_time(), asked.wait, report)
    return results.of_job(await calls.found(status))


async def _get_job_logs(calls: Calls, asked: taken.GetJobLogs, _: Report | None) -> CallToolResult:
    logs = await calls.client.get_logs(asked.job_id)
    data = logs.stdout_bytes if asked.stream == "stdout" else logs.stderr_bytes
    part = piece(data, asked.offset, asked.limit)
    answer = answers.Logs(
        job_id=asked.job_id,
        stream=asked.stream,
        text=part.text,
        offset=part.start,
        next_offset=part.next,
        size_bytes=len(data),
        truncated=logs.truncated,
    )
    more = f"\n[more follows: offset={part.next}]" if part.next is not None else ""
    where = f"{asked.stream}, bytes {part.start} to {part.end} of {len(data)}"
    return results.result(answer, f"{where}:\n{part.text}{more}")


async def _get_job_file(calls: Calls, asked: taken.GetJobFile, _: Report | None) -> CallToolResult:
    return await files.file_result(calls.client, asked)


async def _cancel_job(calls: Calls, asked: taken.OneJob, _: Report | None) -> CallToolResult:
    try:
        await calls.client.cancel(asked.job_id)
    except UnknownJob:
        existed, text = False, f"There is no job {asked.job_id}."
    else:
        existed, text = True, f"The job {asked.job_id} is ended, and everything of it is deleted."
    return results.result(answers.Cancelled(job_id=asked.job_id, existed=existed), text)


async def _list_environments(calls: Calls, asked: taken.Nothing, _: Report | None) -> CallToolResult:
    server = await calls.client.test_connection()
    found = await calls.client.list_environments()
    environments = [
        answers.Environment(
            name=str(item["name"]),
            description=str(item.get("description") or ""),
            interpreters=[str(name) for name in item.get("interpreters") or ()],
            packages=[str(name) for name in (item.get("packages") or ())[:MOST_PACKAGES]],
            package_count=len(item.get("packages") or ()),
        )
        for item in found.get("details") or ()
    ]
    limits: dict[str, float | int | str | bool | None] = {
        name: value for name, value in server.limits.items() if isinstance(value, (int, float, str))
    }
    answer = answers.Environments(
        environments=environments, languages=list(server.interpreters), limits=limits
    )
    lines = [f"Languages: {', '.join(answer.languages)}.", "Environments:"]
    for environment in environments:
        packages = f"; packages: {', '.join(environment.packages)}" if environment.packages else ""
        lines.append(f"- {environment.name}: {environment.description}{packages}")
    lines.append(f"Limits: {', '.join(f'{name}={value}' for name, value in limits.items())}.")
    return results.result(answer, "\n".join(lines))


_RUNS = (
    "in a sandbox without network and wait for it. Nothing of it lasts: every run begins with a folder of "
    "its own, in which it may write; files that it leaves there come back, images as images. Print what is "
    "to be seen. A run that takes long is answered with a job_id for check_job_status."
)

TOOLS = (
    *(
        Tool(
            name=f"execute_{name}",
            title=f"Run {title}",
            description=f"Run {what} {_RUNS}",
            takes=taken.Execute,
            gives=answers.Job,
            handler=_executes(interpreter),
            reads_only=False,
        )
        for name, title, what, interpreter in (
            ("python", "Python", "a Python 3 program", "python3"),
            ("javascript", "JavaScript", "a JavaScript program (Node.js)", "node"),
            ("bash", "Bash", "a Bash script", "bash"),
        )
    ),
    Tool(
        name="run_code",
        title="Run code",
        description=f"Run a program of any language, with files, arguments and variables, {_RUNS}",
        takes=taken.RunCode,
        gives=answers.Job,
        handler=_run_code,
        reads_only=False,
    ),
    Tool(
        name="submit_job",
        title="Submit a job",
        description="Start a program as run_code does, and answer with its job_id at once.",
        takes=taken.SubmitJob,
        gives=answers.Submitted,
        handler=_submit_job,
        reads_only=False,
    ),
    Tool(
        name="check_job_status",
        title="Check a job",
        description="Say where a job is or how it ended, with what it printed and left. `wait` waits for it.",
        takes=taken.CheckJobStatus,
        gives=answers.Job,
        handler=_check_job_status,
        reads_only=True,
    ),
    Tool(
        name="get_job_logs",
        title="Read what a job printed",
        description="Give a part of what a job has printed so far.",
        takes=taken.GetJobLogs,
        gives=answers.Logs,
        handler=_get_job_logs,
        reads_only=True,
    ),
    Tool(
        name="get_job_file",
        title="Read a file of a job",
        description="Give a file that a finished job left: a text or a part of it, or an image.",
        takes=taken.GetJobFile,
        gives=answers.File,
        handler=_get_job_file,
        reads_only=True,
    ),
    Tool(
        name="cancel_job",
        title="Cancel a job",
        description="End a job if it still goes on, and delete everything of it.",
        takes=taken.OneJob,
        gives=answers.Cancelled,
        handler=_cancel_job,
        reads_only=False,
        destroys=True,
        idempotent=True,
    ),
    Tool(
        name="list_environments",
        title="List environments",
        description="List the environments with their packages, the languages, and the limits of the server.",
        takes=taken.Nothing,
        gives=answers.Environments,
        handler=_list_environments,
        reads_only=True,
    ),
)
BY_NAME = {tool.name: tool for tool in TOOLS}
