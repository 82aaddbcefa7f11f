"""Starts zygotes, clean interpreters that fork sandboxes, and keeps them alive."""

import asyncio
import os
import subprocess
from collections.abc import Iterable
from importlib import resources

from sandrun_executor.cgroups import Cgroup
from sandrun_executor.links import Link, Words
from sandrun_executor.sandbox.job import ENVIRONMENT
from sandrun_executor.sandbox.root import PROGRAM
from sandrun_executor.slots import Slot

PYTHON = "/usr/bin/python3"
_START_SECONDS = 20.0
# What becomes the sandbox, in an order in which each finds what it imports.
_MODULES = (
    "linux_unsafe",
    "sandbox.steps",
    "sandbox.root",
    "sandbox.landlock",
    "sandbox.confine",
    "sandbox.channel",
    "sandbox.orders",
    "sandbox.beneath",
    "sandbox.unpack",
    "sandbox.collect",
    "sandbox.job",
    "sandbox.init",
    "sandbox.frames",
    "sandbox.zygote",
    "sandbox.run_python",
)
_IMAGE_MODULES = ("linux_unsafe", "sandbox.root", "sandbox.frames")
# Room for the command line that a job's /proc/self/cmdline is to show.
_PADDING = " " * 2048

# The first stage builds the image and starts the interpreter anew inside it: what the host's site
# configuration would load, as root, is not there.
_LOAD = """\
import sys
def load(name, text):
    module = type(sys)(name)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    if text is None:
        module.__path__ = []
    else:
        exec(compile(text, "<" + child + ">", "exec", dont_inherit=True), module.__dict__)
baseline = frozenset(sys.modules)
for name, text in {modules!r}:
    load(name, text)
"""
_FIRST = """
import os
with open({second}) as file:
    program = sys.modules["sandrun_executor.sandbox.frames"].compiled(file.read())
sys.modules["sandrun_executor.sandbox.root"].enter_image(program)
os.execve({command!r}[0], {command!r}, dict(os.environ))
"""
_SECOND = """
config = {config!r}
config["baseline"] = baseline
program = sys.modules["sandrun_executor.sandbox.zygote"].main(config)
sys.modules["sandrun_executor.sandbox.run_python"].run(program)
"""


class ZygoteError(Exception):
    """A zygote did not start; the text says what to look at."""


def _source(text: str) -> int:
    """A memfd with a program that is too long for a command line."""
    fd = os.memfd_create("zygote", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _modules(names: Iterable[str]) -> list[tuple[str, str | None]]:
    package = resources.files("sandrun_executor")
    modules: list[tuple[str, str | None]] = [("sandrun_executor", None), ("sandrun_executor.sandbox", None)]
    for name in names:
        modules.append(
            (f"sandrun_executor.{name}", package.joinpath(f"{'/'.join(name.split('.'))}.py").read_text())
        )
    return modules


class Zygote:
    """One running zygote and the channel to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", link: Link, cgroup: Cgroup) -> None:
        self._process = process
        self._link = link
        self._cgroup = cgroup
        self.alive = True

    @property
    def pid(self) -> int:
        """Its process id, for measuring."""
        return self._process.pid

    @classmethod
    async def start(
        cls, cgroup: Cgroup, seccomp: bytes, *, core_bytes: int, noswap: str, without: Iterable[str] = ()
    ) -> "Zygote":
        """Start a zygote in the given cgroup and wait until it serves. Raises ZygoteError."""
        link = Link()
        if cgroup.into_fd is not None:
            tasks = [os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup.into_fd)]
        else:
            tasks = [os.dup(fd) for fd in cgroup.join_fds]
        config = {
            "control": link.far,
            "tasks": tasks,
            "seccomp": seccomp,
            "core_bytes": core_bytes,
            "noswap": noswap,
            "without": list(without),
        }
        second = _source(_LOAD.format(modules=_modules(_MODULES)) + _SECOND.format(config=config))
        command = [PYTHON, PROGRAM, _PADDING]
        first = _source(
            _LOAD.format(modules=_modules(_IMAGE_MODULES)) + _FIRST.format(second=second, command=command)
        )
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 (a millisecond, at start)
                [PYTHON, "-ISc", f"import os;exec(os.fdopen({first}).read())"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=ENVIRONMENT,  # a job's own, so that its interpreter starts no other way
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
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def heard(words: Words, _fd: int | None) -> None:
            if not ready.done():
                ready.set_result(words == ["ready"])
            if not words:
                zygote.alive = False

        link.listen(heard)
        try:
            async with asyncio.timeout(_START_SECONDS):
                served = await ready
        except TimeoutError:
            served = False
        if not served:
            zygote.stop()
            raise ZygoteError(f"{PYTHON} did not become a zygote; its own words are above")
        return zygote

    def spawn(self, link: Link, job_link: Link, slot: Slot, folders: dict[str, int]) -> None:
        """Ask for a sandbox; it reports on the two links. Raises OSError when the zygote is gone."""
        cgroup = slot.cgroup
        fds = [link.far, job_link.far, slot.network_fd, *cgroup.join_fds]
        if cgroup.into_fd is not None:
            fds.append(cgroup.into_fd)
        self._link.send({"uid": slot.uid, "into_cgroup": cgroup.into_fd is not None, **folders}, fds)
        link.close_far()
        job_link.close_far()

    def stop(self) -> None:
        """End it, and with it every sandbox it forked; returns when it is reaped."""
        self.alive = False
        self._process.kill()
        self._process.wait()
        self._link.close()
