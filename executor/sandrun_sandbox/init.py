"""PID 1 of a sandbox: sets it up, waits for the job, kills what is left, then collects the outputs.

As root it reads nothing that a client wrote. Before it collects, it becomes the job's user.
"""

from __future__ import annotations

import _signal
import os
import select
import time

from sandrun_sandbox import collect, gpu_files, imports, job, landlock, layout, messages, orders, root
from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.channel import Channel
from sandrun_sandbox.confine import Confinement
from sandrun_sandbox.messages import Failed
from sandrun_sandbox.steps import StepError, run_steps

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from typing import Any


def main(config: dict[str, Any], request: messages.Spawn, link: Channel, fds: list[int]) -> job.Program:
    """Set the sandbox up, fork the job's process and supervise it; returns only in that process.

    fds: the job's channel, the network namespace, then one `tasks` file per cgroup controller (v1).
    """
    job_fd, network, *tasks = fds
    uid, gpu = request.uid, request.gpu
    limits, noswap = request.limits, config["noswap"]
    try:
        run_steps(
            (
                ("parent_death", lambda: linux.prctl(linux.PR_SET_PDEATHSIG, _signal.SIGKILL)),
                ("dumpable", lambda: linux.prctl(linux.PR_SET_DUMPABLE, 0)),
                ("join_cgroup", lambda: [os.write(fd, b"0") for fd in tasks]),
                ("cgroup", lambda: linux.unshare(linux.CLONE_NEWCGROUP)),
                ("network", lambda: linux.setns(network, linux.CLONE_NEWNET)),
                ("files", lambda: root.mount_files(uid, limits, noswap, config["links"], gpu)),
                ("devices", lambda: root.mount_devices(limits, noswap, gpu)),
                ("proc", root.mount_proc),
                ("mask_proc", lambda: root.mask_proc(gpu_files.masks(config["masks"], gpu), config["stat"])),
                ("enter_root", root.enter),
                ("host_name", lambda: linux.sethostname("sandrun")),
                ("time", _new_clock),
            )
        )
        # Packages are mounted when the job is handed over; until then the folder is empty and read-only.
        writable = (*layout.WRITABLE, layout.PACKAGES) if request.installs else layout.WRITABLE
        ruleset = landlock.make_ruleset(writable, () if gpu is None else (layout.DRIVER,))
        confinement = Confinement(uid, ruleset, config["seccomp" if gpu is None else "gpu_seccomp"])
    except StepError as error:
        link.report(error.report)
        os._exit(1)
    except OSError as error:
        link.report(Failed("landlock", error.errno or 0))
        os._exit(1)
    for fd in (network, *tasks):
        os.close(fd)
    # The zygote ignores SIGCHLD, with which we would not get the job's status.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, job.SIGCHLD)
    children = linux.signalfd(_signal.SIGCHLD)
    try:
        pid = os.fork()
    except OSError as error:
        link.report(Failed("fork", error.errno or 0))
        os._exit(1)
    if pid == 0:
        link.close()
        os.close(children)
        return job.main(config, confinement, Channel(job_fd))
    try:
        imports.end()
        os.close(job_fd)
        _supervise(config, confinement, link, pid, children)
    finally:  # even on an exception, so that the interpreter's finalization never runs here
        os._exit(0)


def _new_clock() -> None:
    """Enter a time namespace in which the machine has just started (time_namespaces(7))."""
    linux.unshare(linux.CLONE_NEWTIME)
    fd = os.open("/proc/self/timens_offsets", os.O_WRONLY)
    # CLOCK_MONOTONIC_RAW gets the same offset but may be behind, and no clock may become negative.
    monotonic = min(time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_MONOTONIC_RAW))
    boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        os.write(fd, b"monotonic -%d 0\nboottime -%d 0\n" % (monotonic, boottime))
    finally:
        os.close(fd)


def _supervise(
    config: dict[str, Any], confinement: Confinement, link: Channel, job_pid: int, children: int
) -> None:
    """Reap children until the job's process is dead, then kill everything else and collect."""
    poll = select.poll()
    poll.register(link, select.POLLIN)
    poll.register(children, select.POLLIN)
    status: int | None = None
    kill_at: float | None = None
    while status is None:
        ready = poll.poll(None if kill_at is None else max(kill_at - time.monotonic(), 0.0) * 1000)
        grace = None if ready else 0.0
        for fd, _ in ready:
            if fd == children:
                os.read(children, 128)  # one struct signalfd_siginfo stands for any number of children
                status = _reap(job_pid)
            else:
                grace = _heed(config, link)
        if grace and kill_at is None:
            kill_at = time.monotonic() + grace
            _signal_all(_signal.SIGTERM)
        elif grace is not None:
            kill_at = None
            poll.unregister(link)  # there is nothing more to report
            _signal_all(_signal.SIGKILL)
    _signal_all(_signal.SIGKILL)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    link.report(messages.Exited(status, root.is_full()))
    _collect(confinement, link)


def _heed(config: dict[str, Any], link: Channel) -> float | None:
    """Obey one order of the executor; returns the seconds from SIGTERM to SIGKILL if it is Stop."""
    try:
        message = link.receive(messages.Stop, messages.Configure)
    except messages.MessageError as error:
        link.report(error.report)
        os._exit(1)
    if message is None:
        os._exit(0)  # the executor is gone; the kernel kills the whole namespace with us
    request, fds = message
    if isinstance(request, messages.Configure):
        _configure(config, request, fds, link)
    return request.grace_seconds if isinstance(request, messages.Stop) else None


def _configure(config: dict[str, Any], request: messages.Configure, fds: list[int], link: Channel) -> None:
    """Resize the job's folders, and mount a layer, or a folder to install to and the tools."""
    step = "sizes"
    try:
        if request.limits is not None:
            root.resize(request.limits, config["noswap"])
        step = "packages"
        if request.packages == messages.LAYER:
            root.mount_installed(fds[0])
        elif request.packages == messages.INSTALLING:
            root.mount_installing(fds[0], list(zip(request.tools, fds[1:], strict=True)))
    except OSError as error:
        link.report(Failed(step, error.errno or 0))
        os._exit(1)
    for fd in fds:
        os.close(fd)
    link.report(messages.Configured())


def _signal_all(number: int) -> None:
    try:  # noqa: SIM105 (contextlib would be an additional module in every job)
        os.kill(-1, number)
    except ProcessLookupError:
        pass


def _reap(job_pid: int) -> int | None:
    """Reap every zombie; returns the job's wait status if it was among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == job_pid:
            found = status


def _collect(confinement: Confinement, link: Channel) -> None:
    """Become the job's user while the executor judges the job, then collect what it asks for."""
    work = os.open(layout.WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        confinement.enter_as_collector()
    except StepError as error:
        link.report(error.report)
        return
    try:
        asked = _asked_to_collect(link)
    except messages.MessageError as error:
        link.report(error.report)
        return
    if asked is None:
        return
    request, (order_fd, snapshot_fd, data_fd, names_fd, numbers_fd) = asked
    try:
        order = orders.decode_order(orders.read_all(order_fd))
        snapshot = orders.read_all(snapshot_fd)
        left_out = collect.collect(
            work,
            order.outputs,
            snapshot,
            collect.Into(data_fd, names_fd, numbers_fd),
            max_files=request.files,
            max_bytes=request.size_bytes,
            seconds=request.seconds,
        )
        link.report(messages.Collected(tuple([left_out[reason] for reason in layout.REASONS])))
    except (OSError, ValueError, MemoryError):
        link.report(Failed("collect", 0))


def _asked_to_collect(link: Channel) -> tuple[messages.Collect, list[int]] | None:
    """Receive what to collect; None if the executor hung up. Raises MessageError."""
    while True:
        message = link.receive(messages.Stop, messages.Collect)
        if message is None:
            return None
        request, fds = message
        if isinstance(request, messages.Collect):
            return request, fds
        # The job ended by itself while it was being stopped.
