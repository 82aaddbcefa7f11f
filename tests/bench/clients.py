"""The subjects: each runs one program once, from the request to the last word about it, and checks it."""

import functools
import json
import os
import select
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Protocol

import msgspec

from sandrun_shared.framing import close_all, receive, send
from sandrun_shared.jobs import Limits
from sandrun_shared.orders import Order, encode_bundle, encode_order
from sandrun_shared.protocol import Event, Execute, Finished, Output, Refused, Usage

WAIT_SECONDS = 60.0
FULL_PAUSE_SECONDS = 0.001
BOUNDARY = "sandrun-benchmark"
BWRAP = (
    "bwrap --unshare-all --die-with-parent --new-session --ro-bind /usr /usr --symlink usr/lib /lib "
    "--symlink usr/lib64 /lib64 --symlink usr/bin /bin --proc /proc --dev /dev --tmpfs /tmp --"
).split()
_decoder = msgspec.msgpack.Decoder(Event)


@dataclass(frozen=True)
class Program:
    """What every subject runs, as a file or as an argument of the interpreter; burst is how often in a row."""

    name: str
    interpreter: str
    path: str
    code: str
    output: bytes
    option: str = "-c"
    environment: str = "default"
    burst: int = 11


PROGRAMS = (
    Program("python", "python3", "/usr/bin/python3", "print(1)", b"1\n"),
    Program("bash", "bash", "/usr/bin/bash", "true", b""),
)
ML_BASIC = "ml-basic"
WHOLE = ("curl", "command")  # kinds whose figure is how long one start takes


def programs(environments: Path) -> list[Program]:
    """PROGRAMS, and those whose interpreter or environment is there."""
    found = [*PROGRAMS]
    node = shutil.which("node", path="/usr/bin")
    if node:
        found.append(Program("node", "node", node, "console.log(1)", b"1\n", option="-e"))
    python = environments / ML_BASIC / "current/bin/python3"
    if python.exists():
        code = "import pandas; print(1)"
        found.append(Program("pandas", "python3", str(python), code, b"1\n", environment=ML_BASIC, burst=3))
    else:
        print(
            f"{ML_BASIC} is not measured: not built in {environments} (tests/environments/run.py {ML_BASIC})"
        )
    return found


class Client(Protocol):
    """One client of one subject: a call is one job."""

    def __call__(self) -> None: ...

    def close(self) -> None: ...


def _expect(got: bytes, program: Program) -> None:
    if got != program.output:
        raise RuntimeError(f"{program.name} printed {got[:200]!r} instead of {program.output!r}")


class ProcessClient:
    """A process: vfork, exec, its output by a pipe, its status."""

    def __init__(self, program: Program, prefix: list[str]) -> None:
        self._program = program
        self._command = [*prefix, program.path, program.option, program.code]
        self._path = shutil.which(self._command[0]) or self._command[0]
        self._environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}

    def __call__(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            actions = [(os.POSIX_SPAWN_DUP2, write, 1)]
            pid = os.posix_spawn(self._path, self._command, self._environment, file_actions=actions)
        finally:
            os.close(write)
        said = b""
        while data := os.read(read, 65536):
            said += data
        os.close(read)
        if os.waitpid(pid, 0)[1] != 0:
            raise RuntimeError(f"{self._command[0]} failed")
        _expect(said, self._program)

    def close(self) -> None:
        """Nothing is kept."""


class WholeProcess(ProcessClient):
    """A client's whole process, from its start to its end, for a job of the api."""

    def __init__(self, program: Program, command: list[str], port: int) -> None:
        super().__init__(program, [])
        self._command = command
        self._path = shutil.which(command[0]) or command[0]
        self._environment["SANDRUN_URL"] = f"http://127.0.0.1:{port}"


def _curl(port: int, program: Program) -> WholeProcess:
    url = f"http://127.0.0.1:{port}/run?interpreter={program.interpreter}"
    words = ["curl", "-sS", "-H", "Content-Type: text/plain", "--data-binary", program.code, url]
    return WholeProcess(program, words, port)


def _command(port: int, program: Program) -> WholeProcess:
    command = str(Path(sys.executable).with_name("sandrun"))
    return WholeProcess(program, [command, "run", "--lang", program.interpreter, "-c", program.code], port)


def _memfd(data: bytes) -> int:
    fd = os.memfd_create("bench", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class ExecutorJob:
    """Run one job on a new connection."""

    def __init__(self, path: str, program: Program) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(WAIT_SECONDS)
        self._socket.connect(path)
        fds = [_memfd(encode_order(Order("main"))), _memfd(encode_bundle({"main": program.code.encode()}))]
        try:
            request = Execute("bench", program.interpreter, Limits(), program.environment)
            send(self._socket, request, tuple(fds))
        finally:
            close_all(fds)
        self.printed = b""
        self.usage: Usage | None = None

    def step(self) -> Finished | Refused | None:
        """Take one event; the last one is returned."""
        received = receive(self._socket, _decoder)
        if received is None:
            raise ConnectionResetError("the executor hung up")
        event, fds = received
        close_all(fds)
        match event:
            case Output():
                self.printed += event.data
            case Usage():
                self.usage = event
            case Finished():
                self.printed += b"".join(output.data for output in event.logs)
                return event
            case Refused():
                return event
        return None

    def close(self) -> None:
        """Hang up, which cancels."""
        self._socket.close()


class ExecutorClient:
    """The executor alone: connect, request, and all events until Finished."""

    def __init__(self, path: str, program: Program) -> None:
        self._path = path
        self._program = program

    def __call__(self) -> None:
        while True:
            job = ExecutorJob(self._path, self._program)
            try:
                last = None
                while last is None:
                    last = job.step()
            finally:
                job.close()
            if isinstance(last, Finished):
                if last.outcome.verdict.value != "ok":
                    raise RuntimeError(f"the job ended badly: {last.outcome}")
                _expect(job.printed, self._program)
                return
            if last.reason != "full":
                raise RuntimeError(f"refused: {last}")
            pause(FULL_PAUSE_SECONDS)

    def close(self) -> None:
        """Nothing is kept."""


class HttpClient:
    """A kept-alive connection to the api."""

    def __init__(self, port: int, program: Program) -> None:
        self._program = program
        self._connection = HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        self._connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            raise RuntimeError(f"{method} {path}: {response.status} {answer[:300]!r}")
        return answer

    def submit(self) -> str:
        """The id of the program as a job."""
        manifest = json.dumps({"entrypoint": "main", "interpreter": self._program.interpreter})
        parts = (("manifest", "", manifest), ("files", '; filename="main"', self._program.code))
        body = b"".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{data}\r\n'.encode()
            for name, more, data in parts
        ) + (f"--{BOUNDARY}--\r\n".encode())
        answer = self._ask("POST", "/submit", body, f"multipart/form-data; boundary={BOUNDARY}")
        return str(json.loads(answer)["job_id"])

    def status(self, job_id: str, query: str = "") -> Any:
        """What GET /status answers."""
        return json.loads(self._ask("GET", f"/status/{job_id}{query}"))

    def end(self, job_id: str) -> None:
        """Wait until the job has ended well."""
        status = self.status(job_id, "?wait=30")
        if status.get("verdict") != "ok":
            raise RuntimeError(f"the job ended badly: {status}")

    def delete(self, job_id: str) -> None:
        """Have the job forgotten."""
        self._ask("DELETE", f"/jobs/{job_id}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class RunClient(HttpClient):
    """POST /run with the code as text."""

    def __call__(self) -> None:
        program = self._program
        path = f"/run?interpreter={program.interpreter}&environment={program.environment}"
        _expect(self._ask("POST", path, program.code.encode(), "text/plain"), program)


class SubmitClient(HttpClient):
    """POST /submit, then one GET /status that waits."""

    def __call__(self) -> None:
        self.end(self.submit())


@dataclass(frozen=True)
class Subject:
    """Something to measure; connect gives one client of it."""

    kind: str
    program: Program
    connect: Callable[[], Client]

    @property
    def name(self) -> str:
        """For example "executor python"."""
        return f"{self.kind} {self.program.name}"


def subjects(socket_path: str, port: int, environments: Path) -> list[Subject]:
    """All of them, bubblewrap only where it is installed and works."""
    kinds: dict[str, Callable[[Program], Client]] = {"bare": lambda p: ProcessClient(p, [])}
    if shutil.which("bwrap"):
        try:
            ProcessClient(PROGRAMS[0], BWRAP)()
            kinds["bwrap"] = lambda p: ProcessClient(p, BWRAP)
        except (RuntimeError, OSError) as error:
            print(f"bubblewrap is installed but does not work here: {error}")
    kinds["executor"] = lambda p: ExecutorClient(socket_path, p)
    kinds["run"] = lambda p: RunClient(port, p)
    kinds["submit"] = lambda p: SubmitClient(port, p)
    if shutil.which("curl"):
        kinds["curl"] = functools.partial(_curl, port)
        kinds["command"] = functools.partial(_command, port)
    return [
        Subject(kind, program, functools.partial(make, program))
        for kind, make in kinds.items()
        for program in programs(environments)
        # Of the others only what has an aim.
        if program in PROGRAMS or kind in ("bare", "executor", "run")
    ]


def pause(seconds: float) -> None:
    """Idle: part of what is measured, never a wait for something to happen."""
    select.select([], [], [], seconds)
