"""A real executor on a new socket, and a synchronous client for it."""

import itertools
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sandrun_executor.cgroups import probe
from sandrun_executor.daemon import instance_name
from sandrun_shared.framing import close_all, receive, send
from sandrun_shared.jobs import Installer, Limits, Outcome, UploadKind
from sandrun_shared.orders import Order, encode_bundle, encode_order
from sandrun_shared.outputs import OutputEntry, decode_index
from sandrun_shared.protocol import (
    Describe,
    Description,
    Event,
    Execute,
    Finished,
    Output,
    Refused,
    Started,
    Usage,
)

PYTHON = [sys.executable, "-P", "-u"]
WEAKENED = Path(__file__).with_name("weakened_executor.py")
USER = "nobody"  # stands in for the api's user
UIDS = 100  # as many user ids are for one executor alone, so that what it leaves is known by them
_bases = itertools.count(10_000_000 + os.getpid() * 10_000, UIDS)
next_uids = _bases.__next__
# Dies with its parent, even if that is killed: setpriv(1), prctl(2) PR_SET_PDEATHSIG.
ENDS_WITH_PARENT = ["setpriv", "--pdeathsig", "TERM", "--"]
SOCKETS: set[Path] = set()  # of every executor that was started, to look for what they leave
PATIENCE = 10.0 if os.environ.get("SANDRUN_TEST_MACHINE") == "1" else 1.0  # tests/vm: an emulated machine
START_SECONDS = 30.0 * PATIENCE
WAIT_SECONDS = 40.0 * PATIENCE
END_SECONDS = 20.0 * PATIENCE
QUICK = Limits(wall_seconds=20.0, memory_bytes=256 << 20)
# Many at once on two processors, or a compiler.
PATIENT = msgspec.structs.replace(QUICK, wall_seconds=60.0 * PATIENCE)
_decoder = msgspec.msgpack.Decoder(Event)


@dataclass(frozen=True)
class Result:
    """The result of a job; outputs maps the path of each collected file to its bytes."""

    outcome: Outcome
    stdout: bytes
    stderr: bytes
    outputs: dict[str, bytes]
    events: list[msgspec.Struct]
    entries: tuple[OutputEntry, ...] = ()

    def ok(self) -> bytes:
        """Return the stdout of a job, which must have succeeded."""
        assert self.outcome.verdict == "ok", (self.outcome, self.stdout[-500:], self.stderr[-2000:])
        return self.stdout


class RefusedError(Exception):
    """The executor refused the job."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.reason, refused.detail)
        self.reason = refused.reason
        self.detail = refused.detail


def memfd(data: bytes) -> int:
    """Create an unnamed file with data, positioned at its start."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def sweep(executor_socket: Path) -> int:
    """Kill and remove the cgroups of an executor that has ended; returns how many."""
    return probe.probe(instance_name(executor_socket)).sweep()


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


@dataclass
class JobConnection:
    """One running job."""

    sock: socket.socket
    logs: dict[int, bytearray] = field(default_factory=lambda: {1: bytearray(), 2: bytearray()})
    events: list[msgspec.Struct] = field(default_factory=list)
    result: Result | None = None

    def _step(self) -> None:
        received = receive(self.sock, _decoder)
        if received is None:
            raise ConnectionResetError("the executor hung up")
        event, fds = received
        try:
            self.events.append(event)
            match event:
                case Output():
                    self.logs[event.stream] += event.data
                case Refused():
                    raise RefusedError(event)
                case Finished():
                    for output in event.logs:
                        self.logs[output.stream] += output.data
                    outputs, entries = _outputs(fds)
                    self.result = Result(
                        event.outcome,
                        bytes(self.logs[1]),
                        bytes(self.logs[2]),
                        outputs,
                        self.events,
                        entries,
                    )
        finally:
            close_all(fds)

    def until(self, predicate: Callable[["JobConnection"], bool]) -> "JobConnection":
        """Read events until the predicate holds. Raises TimeoutError, RefusedError."""
        while not predicate(self):
            if self.result is not None:
                raise AssertionError(f"the job ended before: {self.result}")
            self._step()
        return self

    def started(self) -> "JobConnection":
        """Wait until the entrypoint runs."""
        return self.until(lambda job: any(isinstance(event, Started) for event in job.events))

    def printed(self, text: bytes) -> "JobConnection":
        """Wait until the job's stdout holds text."""
        return self.until(lambda job: text in job.logs[1])

    def used(self) -> Usage:
        """Wait for the next Usage of the job."""
        seen = len(self.events)
        self.until(lambda job: any(isinstance(event, Usage) for event in job.events[seen:]))
        return next(event for event in self.events[seen:] if isinstance(event, Usage))

    def wait(self) -> Result:
        """Read to the end and hang up."""
        try:
            while self.result is None:
                self._step()
        finally:
            self.sock.close()
        return self.result

    def hang_up(self) -> None:
        """Cancel the job."""
        self.sock.close()


def _outputs(fds: list[int]) -> tuple[dict[str, bytes], tuple[OutputEntry, ...]]:
    if not fds:
        return {}, ()
    data, index = _read(fds[0]), _read(fds[1])
    entries = tuple(decode_index(index, len(data)))
    return {entry.path: data[entry.offset : entry.offset + entry.size_bytes] for entry in entries}, entries


class ExecutorProcess:
    """One running executor; a context manager that stops it."""

    def __init__(
        self,
        without: Iterable[str] = (),
        folder: Path | None = None,
        hosts: dict[str, str] | None = None,
        **settings: object,
    ) -> None:
        """settings: keys of [executor]; without: layers to switch off; hosts: addresses by name."""
        self._own_folder = folder is None
        # Short: a socket's path has room for 107 bytes. The temporary folder of a job's host is no secret.
        self.folder = folder or Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.socket = self.folder / "executor.sock"
        self.log = self.folder / "log"
        self.first_uid = next_uids()
        values = {
            "first_uid": self.first_uid,
            "user": USER,
            "slots": 16,
            "parked": 2,
            "socket": self.socket,
            **settings,
        }
        self.parked = int(str(values["parked"]))
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "SANDRUN_LIMITS__MEMORY_MB": str(QUICK.memory_bytes >> 20),
            **{f"SANDRUN_EXECUTOR__{key.upper()}": str(value) for key, value in values.items()},
        }
        if "PYTHONPATH" in os.environ:
            self._environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
        self._without = list(without)
        self.command = [str(WEAKENED), *self._without] if self._without else ["-m", "sandrun_executor"]
        self.prefix: list[str] = []
        if hosts is not None:
            file = self.folder / "hosts"
            lines = {"localhost": "127.0.0.1", **hosts}
            file.write_text("".join(f"{where} {name}\n" for name, where in lines.items()))
            program = 'mount --bind "$0" /etc/hosts && exec "$@"'
            self.prefix = ["unshare", "--mount", "sh", "-c", program, str(file)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "ExecutorProcess":
        """Start and wait for READY=1."""
        SOCKETS.add(self.socket)
        notify = self.folder / "notify"
        notify.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
            self.log.open("ab") as log,
        ):
            told.bind(str(notify))
            self.process = subprocess.Popen(
                [*self.prefix, *ENDS_WITH_PARENT, *PYTHON, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self.folder,
            )
            pidfd = os.pidfd_open(self.process.pid)
            try:
                ready = select.select([told, pidfd], [], [], START_SECONDS)[0]
                if told not in ready or told.recv(100) != b"READY=1":
                    self.kill()
                    raise AssertionError("the executor did not start:\n" + self.log.read_text())
            finally:
                os.close(pidfd)
        return self

    @property
    def pid(self) -> int:
        """Pid of the started process."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal without waiting for its effect."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Wait for its end (on its pidfd) and reap it; returns the exit status."""
        assert self.process is not None
        if self.process.returncode is None:
            pidfd = os.pidfd_open(self.process.pid)
            try:
                if not select.select([pidfd], [], [], seconds)[0]:
                    raise TimeoutError(f"the executor did not end in {seconds} s")
            finally:
                os.close(pidfd)
        return self.process.wait()

    def stop(self) -> int:
        """Stop it by SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """Stop it if it runs and remove its folder."""
        try:
            if self.process is not None and self.process.poll() is None:
                try:
                    status = self.stop()
                except TimeoutError:
                    self.kill()
                    raise
                assert status == 0, f"the executor ended with {status}:\n{self.log.read_text()}"
        finally:
            if self.process is not None:
                left = sweep(self.socket)
                killed = self.process.returncode == -signal.SIGKILL  # its next start would have swept
                assert killed or not left, f"the executor left {left} cgroups:\n{self.log.read_text()}"
            if self._own_folder:
                shutil.rmtree(self.folder)

    def __enter__(self) -> "ExecutorProcess":
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> socket.socket:
        """Connect without sending anything."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(WAIT_SECONDS)
        sock.connect(str(self.socket))
        return sock

    def describe(self, *, try_sandbox: bool = False) -> Description:
        """Request the executor's description."""
        with self.connect() as sock:
            send(sock, Describe(try_sandbox=try_sandbox))
            received = receive(sock, _decoder)
            assert received is not None
            assert isinstance(received[0], Description)
            return received[0]

    def start_job(
        self,
        files: dict[str, bytes] | bytes | str,
        entrypoint: str = "main",
        interpreter: str = "python3",
        *,
        args: Iterable[str] = (),
        env: dict[str, str] | None = None,
        stdin: bytes | None = None,
        limits: Limits = QUICK,
        outputs: Iterable[str] = (),
        warm: bool = True,
        buffered: bool | None = None,
        archive: tuple[UploadKind, bytes] | None = None,
        environment: str = "default",
        gpu: int | None = None,
        requires: tuple[Installer, dict[str, bytes]] | None = None,
        install_only: bool = False,
    ) -> JobConnection:
        """Send one job; a program alone (bytes or str) becomes the file `main`."""
        if isinstance(files, str):
            files = files.encode()
        if isinstance(files, bytes):
            files = {entrypoint: files}
        kind, upload = archive or (UploadKind.bundle, encode_bundle(files))
        order = Order(entrypoint, tuple(args), env or {}, tuple(outputs))
        fds = [memfd(encode_order(order)), memfd(upload)]
        if stdin is not None:
            fds.append(memfd(stdin))
        installer = None
        if requires is not None:
            installer = requires[0]
            fds.append(memfd(encode_bundle(requires[1])))
        sock = self.connect()
        try:
            request = Execute(
                "test",
                interpreter,
                limits,
                environment=environment,
                upload=kind,
                has_stdin=stdin is not None,
                warm=warm,
                buffered=buffered,
                gpu=gpu,
                installer=installer,
                install_only=install_only,
            )
            send(sock, request, tuple(fds))
        except BaseException:
            sock.close()
            raise
        finally:
            close_all(fds)
        return JobConnection(sock)

    def run_job(self, files: dict[str, bytes] | bytes | str, *arguments: str, **options: object) -> Result:
        """Run one job to its end; arguments as for start_job. Raises RefusedError."""
        job = self.start_job(files, *arguments, **options)  # type: ignore[arg-type]
        try:
            return job.wait()
        except BaseException:
            job.sock.close()
            raise
