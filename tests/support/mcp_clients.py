"""Clients of `sandrun mcp`: the SDK's own, over both transports and in both eras of the protocol."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import jsonschema
from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import CallToolResult, TextContent, Tool

from sandrun_client.mcp.calls import Calls
from sandrun_client.mcp.server import connected, make_server

COMMAND = [sys.executable, "-P", "-m", "sandrun_client", "mcp"]
SECONDS = 60.0
ERAS = {"legacy": "2025-11-25", "auto": "2026-07-28"}


def environment(url: str, **more: str) -> dict[str, str]:
    """The variables that the command needs."""
    return {"PATH": "/usr/bin:/bin", "SANDRUN_URL": url, "PYTHONDONTWRITEBYTECODE": "1", **more}


class HttpServer:
    """`sandrun mcp --http` on a free port; a context manager that ends it."""

    def __init__(self, url: str, *words: str, **more: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--http", "127.0.0.1:0", *words],
            env=environment(url, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        said = b""
        while not (found := re.search(rb"MCP at (http://\S+/mcp);", said)):
            assert select.select([self.process.stderr], [], [], SECONDS)[0], said
            data = os.read(self.process.stderr.fileno(), 4096)
            assert data, said
            said += data
        self.url = found[1].decode()

    def end(self, number: int = signal.SIGINT) -> tuple[int, bytes, bytes]:
        """Send the signal; returns the exit status and the output since it was ready."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err

    def __enter__(self) -> "HttpServer":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)


@contextlib.asynccontextmanager
async def over_stdio(url: str, mode: str, *words: str, **more: str) -> AsyncIterator[Client]:
    """A client that starts the command, whose standard error may hold only Sandrun's log lines."""
    parameters = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], *words], env=environment(url, **more)
    )
    with tempfile.TemporaryFile("w+") as errors:
        async with Client(stdio_client(parameters, errlog=errors), mode=mode) as client:
            yield client
        errors.seek(0)
        assert errors.read() == ""


def in_process(url: str, seconds: float = 30.0, verify_with: str | None = None) -> Client:
    """A client of a server in this process: for what does not depend on the transport."""
    return Client(
        make_server(Calls(connected(url, verify_with, seconds), seconds, verify_with), "1"), mode="legacy"
    )


class Clients:
    """How tests reach the server: by a transport, in an era."""

    def __init__(self, transport: str, mode: str, url: str, http: HttpServer) -> None:
        self.transport = transport
        self.mode = mode
        self.url = url
        self._http = http

    def connect(self) -> contextlib.AbstractAsyncContextManager[Client]:
        """A client."""
        if self.transport == "stdio":
            return over_stdio(self.url, self.mode)
        return Client(self._http.url, mode=self.mode)


class Session:
    """Calls of one client, each checked against the tools' schemas."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._tools: dict[str, Tool] = {}

    async def tools(self) -> dict[str, Tool]:
        """The tools by name, listed once."""
        if not self._tools:
            self._tools = {tool.name: tool for tool in (await self.client.list_tools()).tools}
        return self._tools

    async def call(self, name: str, **arguments: Any) -> CallToolResult:
        """Call a tool, which must not fail; returns the result, checked against its schema."""
        tool = (await self.tools())[name]
        jsonschema.validate(arguments, tool.input_schema)
        with anyio.fail_after(SECONDS):
            result = await self.client.call_tool(name, arguments)
        assert not result.is_error, result
        assert tool.output_schema is not None
        jsonschema.validate(result.structured_content, tool.output_schema)
        return result

    async def refused(self, name: str, **arguments: Any) -> str:
        """Call a tool, which must fail; returns the error's text."""
        with anyio.fail_after(SECONDS):
            result = await self.client.call_tool(name, arguments)
        assert result.is_error, result
        return text_of(result)


def text_of(result: CallToolResult) -> str:
    """The text that a model reads."""
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def started(
    *words: str, url: str, **more: str
) -> "contextlib.AbstractContextManager[subprocess.Popen[bytes]]":
    """The command with pipes, for raw bytes."""
    return _started([*COMMAND, *words], environment(url, **more))


@contextlib.contextmanager
def _started(words: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=env, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()
