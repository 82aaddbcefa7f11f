"""A clean interpreter that forks sandboxes: one clone3 creates PID 1 of each."""

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
    """Make forks start with the interpreter's program text mapped, instead of faulting it in.

    fork(2) copies the page table of a private file mapping only if the process has written to a page of it
    (vma_needs_copy in mm/memory.c), and copying one page costs less than one fault. An environment has too
    many libraries for that, so a job that uses them takes the faults. If a security module forbids it, jobs
    only start slower.
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
    """Move our memory into huge pages, so that fork and exit handle one entry instead of 512.

    A fork that writes to one still copies only 4 KiB. Without a huge page, or on an older kernel, jobs only
    start slower.
    """
    for one in maps:
        if one.flags == "rw-p" and one.path in ("", "[heap]"):
            try:
                linux.collapse(one.start, one.end)
            except OSError:
                continue  # no page of it is in use


def _forget_ourselves(baseline: frozenset[str]) -> list[object]:
    """Hide our modules and what they imported from programs; returns them, to keep them alive."""
    return [sys.modules.pop(name) for name in list(sys.modules) if name not in baseline]


def _next_request(control: Channel) -> tuple[messages.Spawn, list[int]]:
    """Receive a request; exits if the executor hangs up or sends what is not allowed here."""
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
    interpreter has; preloaded is what preload found and how to leave its root, or None. Raises MessageError.
    """
    message = messages.decode_order(config_data, messages.ZygoteConfig)
    # The parameters of every sandbox: the message's fields, and those added below.
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
    # The executor holds a pidfd of every sandbox, so nobody needs its wait status.
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
    compile("", "<zygote>", "exec")  # initializes what the first compilation needs
    maps = [_Mapping(line) for line in root.read_maps()]
    _share_page_tables(maps)
    gc.collect()
    gc.freeze()
    _use_huge_pages(maps)
    # Errors before this line are for the operator; later ones might quote a client.
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
