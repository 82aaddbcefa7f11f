"""`sandrun doctor --gpu`: the same jobs on every GPU of this machine, in a separate executor.

A running service is left alone: socket, user ids and cgroups are others. But a device serves one job at a
time only within one service, so nothing else should use the GPUs meanwhile.
"""

import asyncio
import contextlib
import os
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sandrun_admin import doctor, gpu_job
from sandrun_shared import framing, settings
from sandrun_shared.executor_client import ExecutorClient, ExecutorLost
from sandrun_shared.jobs import Limits, Outcome, Verdict
from sandrun_shared.memfds import Memfd
from sandrun_shared.orders import Order, encode_bundle, encode_order
from sandrun_shared.protocol import Execute, Finished, Gpu, Output, Refused

START_SECONDS = 90.0
KILL_SECONDS = 5.0
UIDS = 1 << 16  # how far above the service's the user ids of these jobs are
LIMITS = Limits(wall_seconds=300.0, memory_bytes=4 << 30, processes=256, cpu_cores=4.0)
PARTS = ((), ("leave",), ("look",))
_ATTEMPTS = 200  # a device is free a moment after its job's last word

Say = Callable[[str], None]


class CheckError(Exception):
    """The check could not be made; the text says why."""


def run(config: Path | None, command: list[str] | None = None, say: Say = print) -> int:
    """Start an executor, run the jobs on each device, print what comes of them; 0 if all ended well.

    command: what starts the executor, for tests.
    """
    chosen = settings.load(config)
    if os.geteuid() != 0:
        say("MISSING  root: the executor makes namespaces and cgroups")
        return 1
    try:
        with _executor(chosen, config, command) as path:
            return asyncio.run(_check(ExecutorClient(path), say))
    except (CheckError, ExecutorLost) as error:
        say(f"MISSING  executor: {error}")
        return 1


@contextlib.contextmanager
def _executor(chosen: settings.Settings, config: Path | None, command: list[str] | None) -> Iterator[Path]:
    """An executor that gives GPUs to jobs; its socket. Raises CheckError."""
    folder = Path(tempfile.mkdtemp(prefix="sandrun-gpu-", dir="/run" if Path("/run").is_dir() else None))
    path = folder / "executor.sock"
    kept = {
        key: value for key, value in os.environ.items() if key.startswith(settings.PREFIX) and "__" in key
    }
    values = {
        "SOCKET": path, "GPU": "true", "SLOTS": 2, "PARKED": 0, "WORKER_KEY": "",
        "FIRST_UID": chosen.executor.first_uid + UIDS,
    }  # fmt: skip
    environ = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        **{key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ},
        **kept,
        **{f"SANDRUN_EXECUTOR__{key}": str(value) for key, value in values.items()},
        "NOTIFY_SOCKET": str(folder / "notify"),
    }
    given = ["--config", str(config.absolute())] if config is not None else []
    default = [doctor.executor_python(), "-P", "-m", "sandrun_executor", *given]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(str(folder / "notify"))
            process = subprocess.Popen(command or default, stdin=subprocess.DEVNULL, env=environ, cwd="/")
            try:
                _await_ready(told, process)
                yield path
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    with contextlib.suppress(
                        subprocess.TimeoutExpired
                    ):  # in state D it stays until its wait ends
                        process.wait(KILL_SECONDS)
    finally:
        shutil.rmtree(folder)


def _await_ready(told: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    pidfd = os.pidfd_open(process.pid)
    try:
        ready = select.select([told.fileno(), pidfd], [], [], START_SECONDS)[0]
    finally:
        os.close(pidfd)
    if told.fileno() not in ready or not told.recv(100).startswith(b"READY=1"):
        raise CheckError("it did not start; its output is above")


async def _check(client: ExecutorClient, say: Say) -> int:
    description = await client.describe()
    if description.gpu_problem:
        say(f"advice   {description.gpu_problem}")
    if not description.gpus:
        say("MISSING  GPU: there is none for jobs")
        return 1
    failed = 0
    for gpu in description.gpus:
        version, capability = ("{}.{}".format(*pair) for pair in (gpu.cuda_version, gpu.compute_capability))
        say(
            f"ok       GPU {gpu.index}: {gpu.name}, {gpu.memory_bytes / 1e9:.1f} GB, CUDA {version}, "
            f"compute capability {capability}"
        )
        for part in PARTS:
            outcome, output = await _run(client, gpu, part)
            word = "ok" if outcome.verdict is Verdict.ok else "MISSING"
            failed += word != "ok"
            say(
                f"{word:<8} GPU {gpu.index}: job{''.join(' ' + name for name in part)}: {outcome.verdict}, "
                f"exit code {outcome.exit_code}, {outcome.wall_seconds:.2f} s, "
                f"{outcome.memory_peak_bytes >> 20} MiB {outcome.detail}"
            )
            for line in output.decode(errors="backslashreplace").splitlines():
                say(f"           {line}")
    return int(failed > 0)


async def _run(client: ExecutorClient, gpu: Gpu, args: tuple[str, ...]) -> tuple[Outcome, bytes]:
    """One job; its outcome and what it printed. Raises CheckError, ExecutorLost."""
    order = Memfd.create("order", encode_order(Order("main.py", args)))
    upload = Memfd.create("upload", encode_bundle({"main.py": gpu_job.PROGRAM.encode()}))
    request = Execute("doctor", "python3", LIMITS, gpu=gpu.index)
    try:
        for attempt in range(_ATTEMPTS):
            output = bytearray()
            async with client.execute(request, (order.fileno(), upload.fileno())) as connection:
                while True:
                    event, fds = await connection.receive()
                    framing.close_all(fds)
                    match event:
                        case Output():
                            output += event.data
                        case Finished():
                            output += b"".join(part.data for part in event.logs)
                            return event.outcome, bytes(output)
                        case Refused() if event.reason == "full" and attempt < _ATTEMPTS - 1:
                            break
                        case Refused():
                            raise CheckError(f"the job was refused: {event.detail}")
            await asyncio.sleep(0.05)
    finally:
        order.close()
        upload.close()
    raise CheckError("the device is in use")
