"""The MCP server: its handlers, which hand over to the tools, and what lives as long as it does."""

import contextlib
import math
import os
from collections.abc import AsyncIterator
from typing import Any

from mcp import MCPError
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
)

from sandrun_client.aio import AsyncSandrunClient
from sandrun_client.errors import SandrunError
from sandrun_client.mcp import files, results
from sandrun_client.mcp.calls import Calls, Report
from sandrun_client.mcp.tools import BY_NAME, TOOLS

TIMEOUT_VARIABLE = "SANDRUN_TIMEOUT"
TIMEOUT_SECONDS = 30.0
RETRIES = 2  # a client waits for its answer meanwhile
MAX_RETRY_WAIT = 3.0
INSTRUCTIONS = (
    "Runs code that need not be trusted, in sandboxes without network that are thrown away after each run. "
    "Give whole programs, and let them print what you want to know. Packages are those of an environment: "
    "see list_environments. A run that takes longer than a call may is answered with a job_id: go on with "
    "check_job_status. A program that fails is a result, not an error."
)

Context = ServerRequestContext[Calls]


def call_seconds() -> float:
    """Within how many seconds a call is answered: SANDRUN_TIMEOUT, else 30. Raises SandrunError."""
    text = os.environ.get(TIMEOUT_VARIABLE) or str(TIMEOUT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86400:
        raise SandrunError(f"{TIMEOUT_VARIABLE} is {text!r}, and no number of seconds from 1 to 86400.")
    return seconds


def connected(url: str | None, verify_with: str | None, seconds: float) -> AsyncSandrunClient:
    """A client of the Sandrun server, which gives up before a call must be answered. Raises SandrunError."""
    return AsyncSandrunClient(
        url, verify_with=verify_with, retries=RETRIES, max_retry_wait=MAX_RETRY_WAIT, timeout=seconds
    )


def make_server(calls: Calls, version: str) -> Server[Calls]:
    """A server for one transport, with the calls that it serves; it closes their client when it ends."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Server[Calls]) -> AsyncIterator[Calls]:
        async with calls.client:
            try:
                yield calls
            finally:
                await calls.aclose()

    return Server(
        "sandrun",
        title="Sandrun",
        version=version,
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        get_tool_input_schema=_input_schema,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_templates,
        on_read_resource=_read_resource,
    )


def _input_schema(name: str) -> dict[str, Any] | None:
    return BY_NAME[name].listed.input_schema if name in BY_NAME else None


async def _list_tools(_: Context, __: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=[tool.listed for tool in TOOLS])


async def _call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
    tool = BY_NAME.get(params.name)
    if tool is None:
        raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
    calls = context.lifespan_context
    try:
        with calls.entered():
            return await tool.call(calls, params.arguments or {}, _report(context))
    except SandrunError as error:
        return results.failure(error)


async def _list_resources(_: Context, __: PaginatedRequestParams | None) -> ListResourcesResult:
    """None: who knows a job's id knows its files; there is no list of jobs."""
    return ListResourcesResult(resources=[])


async def _list_templates(_: Context, __: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    return ListResourceTemplatesResult(resource_templates=[files.TEMPLATE])


async def _read_resource(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
    calls = context.lifespan_context
    try:
        with calls.entered():
            return await files.read(calls.client, params.uri)
    except SandrunError as error:
        raise files.unreadable(params.uri, error) from error


def _report(context: Context) -> Report | None:
    """Tells progress to a client that asked for it."""
    meta = (context.params or {}).get("_meta") or {}
    if "progressToken" not in meta:
        return None
    last = -math.inf

    async def report(seconds: float, message: str) -> None:
        nonlocal last
        last = max(seconds, math.nextafter(last, math.inf))  # it must increase with every notification
        await context.session.report_progress(last, message=message)

    return report
