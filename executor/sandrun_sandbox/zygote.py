"""A clean interpreter that forks sandboxes: one clone3 gives the first process of each."""

from __future__ import annotations

import _signal
import gc
import os
import sys

from sandrun_sandbox import init, messages, root
from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.channel import Channel
from sandrun_sandbox.confine import lower_rlimits
from sandrun_sandbox.job import Program
from sandrun_sandbox.layout import VARIABLES
from sandrun_sandbox.python import cpython_unsafe as cpython
from sandrun_sandbox.python import frames, preview

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from typing import Any

_NAMESPACES = linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS


class _Mapping:
    """A line of /proc/self/maps (proc_pid_maps(5))."""

    def __init__(self, fields: list[str]) -> None:
        addresses, self.flags, _, _, _, *path = fields
        self.start, self.end = [int(text, 16) for text in addresses.split("-")]
        self.path = path[0].rstrip() if path else ""


def _share_page_tables(maps: list[_Mapping]) -> None:
    """Have every fork start with the interpreter's program text mapped, not with a fault for each part of it.

    fork(2) copies the page table of a file's private mapping only if a page of it is the process's own
    (vma_needs_copy in Linux' mm/memory.c); that page costs less than one of the faults. An environment's
    libraries are too many for that: a job that uses some takes the faults. Where a security module forbids
    it, jobs only start slower.
    """
    for one in maps:
        fixed = one.flags[0] == "r" and one.flags[1] == "-" and one.flags[3] == "p"
        if fixed and one.path.startswith("/") and "/site-packages/" not in one.path:
            protection = linux.PROT_READ | (linux.PROT_EXEC if one.flags[2] == "x" else 0)
            try:
                linux.own_one_page(one.start, one.end - one.start, protection)
            except OSError:
                return


def _use_huge_pages(maps: list[_Mapping]) -> None:
    """Put our memory into huge pages: fork and exit then go over one entry where there were 512.

    Of one that is written to, the fork gets the 4 KiB that it writes to, as ever. Where there is no huge
    page, or no such call, jobs only start slower.
    """
    for one in maps:
        if one.flags == "rw-p" and one.path in ("", "[heap]"):
            try:
                linux.collapse(one.start, one.end)
            except OSError:
                continue  # nothing of it is used


def _forget_ourselves(baseline: frozenset[str]) -> list[object]:
    """Our own modules and what they imported, out of every program's sight but alive."""
    return [sys.modules.pop(name) for name in list(sys.modules) if name not in baseline]


def _next_request(control: Channel) -> tuple[messages.Spawn, list[int]]:
    """Wait for the executor; end with it, and when it says what is not to be said here."""
    try:
        received = control.receive(messages.Spawn)
    except messages.MessageError as error:
        control.report(error.report)
        os._exit(1)
    if received is None:
        os._exit(0)
    return received


def main(config_data: bytes, baseline: frozenset[str], preloaded: dict[str, Any] | None) -> Program:
    """Serve the executor until it hangs up; returns only in a process that is a job.

    config_data is an encoded messages.ZygoteConfig; baseline has the names of the modules that every
    interpreter has; preloaded is what sandbox.preload found and how to leave its root, None without. Raises
    MessageError.
    """
    message = messages.decode_order(config_data, messages.ZygoteConfig)
    # What every sandbox is made with: the message's fields, and what is added to them below.
    config: dict[str, Any] = {name: getattr(message, name) for name, _ in message.FIELDS}
    config["baseline"], config["preloaded"] = baseline, preloaded
    if preloaded is not None:
        config["thread_setters"] = cpython.thread_setters()
        preview.leave(preloaded["way_back"])
    linux.prctl(linux.PR_SET_PDEATHSIG, _signal.SIGKILL)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    for fd in config["tasks"]:
        os.write(fd, b"0")
        os.close(fd)
    control = Channel(config["control"])
    # The executor holds a pidfd of every sandbox; nobody needs the status of one.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    config["masks"], config["stat"] = root.read_masks(), root.read_stat()
    for name in ("seccomp", "gpu_seccomp"):
        config[name] = linux.SeccompProgram(config[name])
    config["command_line"] = cpython.command_line_room()
    config["variables"] = {**VARIABLES, **config["variables"]}
    os.environ.clear()
    os.environ.update(config["variables"])
    lower_rlimits(config["core_bytes"])
    cpython.lend_recursion(frames.DEPTH)
    config["spared"] = tuple(config["baseline"] - {"sys", "builtins", "__main__"})
    config["kept"] = _forget_ourselves(config["baseline"])
    compile("", "<zygote>", "exec")  # whatever an interpreter sets up for its first program
    maps = [_Mapping(line) for line in root.read_maps()]
    _share_page_tables(maps)
    gc.collect()
    gc.freeze()
    _use_huge_pages(maps)
    # What fails before this line is for the operator to read; what fails after it may quote a client.
    os.dup2(1, 2)
    control.report(messages.Ready())
    while True:
        request, fds = _next_request(control)
        into = fds.pop() if request.into_cgroup else None
        link = Channel(fds[0])
        try:
            pid, pidfd = linux.clone3(_NAMESPACES, into)
        except OSError as error:
            link.report(messages.Failed("clone3", error.errno or 0))
        else:
            if pid == 0:
                control.close()
                return init.main(config, request, link, fds[1:])
            link.report(messages.Forked(), pidfd)
            os.close(pidfd)
        link.close()
        for fd in (*fds[1:], *([into] if into is not None else [])):
            os.close(fd)
