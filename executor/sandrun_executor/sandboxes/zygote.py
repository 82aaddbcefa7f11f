"""Starts zygotes, clean interpreters that fork sandboxes, and keeps them alive."""

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sandrun_executor.cgroups.probe import Cgroup
from sandrun_executor.sandboxes import faults
from sandrun_executor.sandboxes.channel import Heard, Link
from sandrun_executor.sandboxes.slots import Slot
from sandrun_executor.seccomp.filter import compile_filter
from sandrun_sandbox import layout
from sandrun_sandbox.messages import FROM_ZYGOTE, Failed, Ready, Spawn, ZygoteConfig
from sandrun_shared import memfds

_START_SECONDS = 20.0
_PRELOAD_SECONDS = 120.0  # importing from a cold disk
STOP_SECONDS = 5.0  # from SIGKILL to a zygote's end; freeing gigabytes takes time
_log = logging.getLogger("sandrun.executor")
# The sandbox's modules, each after those that it imports (tests/unit/sandbox/test_boot.py).
_MODULES = (
    "sandrun_sandbox.layout",
    "sandrun_sandbox.messages",
    "sandrun_sandbox.linux_unsafe",
    "sandrun_sandbox.python.cpython_unsafe",
    "sandrun_sandbox.imports",
    "sandrun_sandbox.steps",
    "sandrun_sandbox.gpu_files",
    "sandrun_sandbox.etc",
    "sandrun_sandbox.root",
    "sandrun_sandbox.python.preview",
    "sandrun_sandbox.landlock",
    "sandrun_sandbox.confine",
    "sandrun_sandbox.channel",
    "sandrun_sandbox.orders",
    "sandrun_sandbox.beneath",
    "sandrun_shared.archives.names",
    "sandrun_shared.archives.members",
    "sandrun_shared.archives.streams",
    "sandrun_shared.archives.sparse",
    "sandrun_shared.archives.tar",
    "sandrun_shared.archives.zip",
    "sandrun_shared.archives.reader",
    "sandrun_sandbox.unpack",
    "sandrun_sandbox.collect",
    "sandrun_sandbox.job",
    "sandrun_sandbox.init",
    "sandrun_sandbox.python.frames",
    "sandrun_sandbox.zygote",
    "sandrun_sandbox.python.run_python",
)
_IMAGE_MODULES = (
    "sandrun_sandbox.layout",
    "sandrun_sandbox.linux_unsafe",
    "sandrun_sandbox.gpu_files",
    "sandrun_sandbox.etc",
    "sandrun_sandbox.root",
    "sandrun_sandbox.python.frames",
)
# Room for the command line that a job's /proc/self/cmdline will show.
_PADDING = " " * 2048

_PREVIEW_MODULES = (*_IMAGE_MODULES, "sandrun_sandbox.messages", "sandrun_sandbox.python.preview")
_PRELOAD_MODULES = ("sandrun_sandbox.python.preload",)
_UNSAFE_MODULES = ("sandrun_sandbox.python.cpython_unsafe",)
_BOOT = "sandrun_sandbox.boot"


class ZygoteError(Exception):
    """A zygote did not start; the text says where to look."""


@dataclass(frozen=True)
class Image:
    """An environment for a zygote: its folder on the host, and how to use it.

    links: as Built.links; modules: to import ahead of jobs. python: the environment's interpreter, or "" for
    the system's, with which code of the folder runs in jobs only.
    """

    folder: str
    python: str
    links: list[str]
    variables: dict[str, str]
    modules: tuple[str, ...]


def _first_stage(second: int, command: list[str], image: Image | None, gpus: dict[str, Any]) -> str:
    environment = None
    if image is not None and image.python:
        # As in a job, but with one thread, because others would not survive a fork.
        variables = {**layout.VARIABLES, **image.variables, **dict.fromkeys(layout.THREADS, "1")}
        environment = {"links": image.links, "variables": variables}
    boot = {
        "modules": _modules(_IMAGE_MODULES if environment is None else _PREVIEW_MODULES),
        "second": second,
        "gpus": gpus,
        "folder": "" if image is None else image.folder,
        "command": command,
        "preview": environment,
    }
    return f"{_text_of(_BOOT)}\nenter_image({boot!r})\n"


def _second_stage(config: ZygoteConfig, image: Image | None, tasks: list[int]) -> str:
    preload = None
    if image is not None and image.python:
        preload = {
            "tasks": tasks,
            "uid": layout.PREVIEW_UID,
            "unsafe": _modules(_UNSAFE_MODULES),
            "modules": _modules(_PRELOAD_MODULES),
            "names": image.modules,
        }
    boot = {"modules": _modules(_MODULES), "preload": preload, "config": config.encode()}
    return f"{_text_of(_BOOT)}\nrun, program = become_zygote({boot!r})\nrun(program)\n"


def _source(text: str) -> int:
    """Put a program that is too long for a command line into a memfd."""
    return memfds.create("zygote", text.encode())


def _modules(names: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
    """List each module with its text, preceded by its packages, which have no text."""
    modules: dict[str, str | None] = {}
    for name in names:
        parts = name.split(".")
        for end in range(1, len(parts)):
            modules.setdefault(".".join(parts[:end]), None)
        modules[name] = _text_of(name)
    return tuple(modules.items())


def _text_of(name: str) -> str:
    """Read the source of a module that is not imported here.

    Not by importlib.resources, which imports zipfile and more.
    """
    top, *folders, module = name.split(".")
    return Path(import_module(top).__path__[0]).joinpath(*folders, f"{module}.py").read_text()


class Zygote:
    """One running zygote and the channel to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", link: Link, cgroup: Cgroup) -> None:
        self._process = process
        self._link = link
        self._cgroup = cgroup
        self._pidfd = -1  # set by stop
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._overdue: asyncio.TimerHandle | None = None
        self.alive = True
        self.answers = True  # False: it forks no more, but its sandboxes go on

    @property
    def pid(self) -> int:
        """Its process id, for measuring."""
        return self._process.pid

    @classmethod
    async def start(
        cls,
        cgroup: Cgroup,
        seccomp: bytes,
        *,
        core_bytes: int,
        noswap: str,
        image: Image | None = None,
        gpus: dict[str, Any] | None = None,
    ) -> "Zygote":
        """Start a zygote in the given cgroup and wait until it serves. Raises ZygoteError.

        gpus: for jobs with a GPU, as gpu.devices.for_image describes them.
        """
        link = Link()
        if cgroup.into_fd is not None:
            tasks = [os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup.into_fd)]
        else:
            tasks = [os.dup(fd) for fd in cgroup.join_fds]
        config = ZygoteConfig(
            control=link.far,
            tasks=tuple(tasks),
            seccomp=seccomp,
            gpu_seccomp=compile_filter(gpu=True) if gpus else seccomp,
            core_bytes=core_bytes,
            noswap=noswap,
            variables={} if image is None else image.variables,
            links=None if image is None else tuple(image.links),
            forks=image is None or bool(image.python),
        )
        gpus = gpus or {"devices": [], "driver": ""}
        second = _source(_second_stage(config, image, tasks))
        command = [layout.PYTHON, layout.ZYGOTE_PROGRAM, _PADDING]
        if image is not None and image.python:
            command = [image.python, layout.PREVIEW_PROGRAM, _PADDING]
        first = _source(_first_stage(second, command, image, gpus))
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 (a millisecond, at start)
                [layout.PYTHON, "-ISc", f"import os;exec(os.fdopen({first}).read())"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=layout.VARIABLES,  # those of a job, so that the interpreter starts as a job's would
                cwd="/",
                pass_fds=(first, second, link.far, *tasks),
                start_new_session=True,
            )
        except BaseException:
            link.close()
            raise
        finally:
            for fd in (first, second, *tasks):
                os.close(fd)
        link.close_far()
        zygote = cls(process, link, cgroup)
        await zygote._serves(_START_SECONDS if image is None else _PRELOAD_SECONDS)
        return zygote

    async def _serves(self, seconds: float) -> None:
        """Wait until it serves. Raises ZygoteError, and stops it, if it does not."""
        ready: asyncio.Future[bool] = self._loop.create_future()
        state = ""

        def hear(heard: Heard, fd: int | None) -> None:
            if fd is not None:
                os.close(fd)
            if not ready.done():
                ready.set_result(heard == Ready())
            if heard is None:
                self.alive = False
            elif isinstance(heard, Failed):
                _log.error("a zygote ended: %s", faults.of_step(heard.step, heard.code))

        self._link.listen(FROM_ZYGOTE, hear)
        served = False
        try:
            async with asyncio.timeout(seconds):
                served = await ready
        except TimeoutError:
            state = faults.state_of(self.pid)
        finally:
            if not served:
                self.stop()
                await self.ended()
        if not served:
            why = f"after {seconds:g} s it is {state}" if state else "see its output above"
            raise ZygoteError(f"{layout.PYTHON} did not become a zygote: {why}")

    def spawn(self, link: Link, job_link: Link, slot: Slot, request: Spawn) -> None:
        """Request a sandbox, which reports on the two links. Raises OSError if the zygote does not read."""
        cgroup = slot.cgroup
        fds = [link.far, job_link.far, slot.network.fd, *cgroup.join_fds]
        if cgroup.into_fd is not None:
            fds.append(cgroup.into_fd)
        try:
            self._link.send(request, fds)
        except BlockingIOError:  # its queue is full: it does not read
            self.answers = False
            raise ZygoteError(str(faults.ZYGOTE_STUCK)) from None
        link.close_far()
        job_link.close_far()

    def stop(self) -> None:
        """Kill it, and with it every sandbox it forked; `ended` waits for that."""
        if self._overdue is not None:
            return
        self.alive = False
        self._process.kill()
        self._link.close()
        self._overdue = self._loop.call_later(STOP_SECONDS, self._give_up)
        with suppress(OSError):  # no descriptor is free, so it is reaped when the wait is given up
            self._pidfd = os.pidfd_open(self.pid)
            self._loop.add_reader(self._pidfd, self._dead)

    def _give_up(self) -> None:
        # A process in state D dies when its wait ends; it is reaped then, or when we exit.
        if self._process.poll() is None:
            state = faults.state_of(self.pid)
            _log.error("zygote %d does not die: %s; %s", self.pid, state, faults.STUCK_REMEDY)
            self._process.returncode = -signal.SIGKILL  # keeps Popen from warning that nobody waited
        self._dead()

    def _dead(self) -> None:
        self._process.poll()
        if self._overdue is not None:
            self._overdue.cancel()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if not self._ended.done():
            self._ended.set_result(None)

    async def ended(self) -> None:
        """Wait until a stopped zygote is reaped, but at most STOP_SECONDS."""
        await asyncio.shield(self._ended)
