"""Each cause has a clause for clients, which reveals no internals, and a remedy for the operator."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandrun_executor.cgroups.probe import CgroupError
from sandrun_executor.environments import circuit
from sandrun_executor.sandboxes import faults, pidfds
from sandrun_executor.sandboxes.sandbox import SandboxError
from sandrun_executor.sandboxes.slots import SlotsRetiredError
from sandrun_executor.sandboxes.zygote import ZygoteError

SETS_ITS_NAME = """
import os
from sandrun_sandbox import linux_unsafe as linux
linux.set_name("seccomp")
print("there", flush=True)
os.read(0, 1)
linux.set_name()
print("back", flush=True)
os.read(0, 1)
"""


@pytest.mark.parametrize("code", [524, errno.ENOMEM])
def test_a_full_pool_of_bpf_programs_has_a_name_and_a_remedy(code: int) -> None:
    fault = faults.of_step("seccomp", code)
    assert "system call filter" in fault.for_clients
    assert "net.core.bpf_jit_limit" in str(fault)
    assert f"step seccomp failed with errno {code}" in str(fault)


@pytest.mark.parametrize(
    ("step", "code", "public", "remedy"),
    [
        ("clone3", errno.EAGAIN, "one more process", "kernel.pid_max"),
        ("fork", errno.ENOMEM, "short of memory", "free -m"),
        ("clone3", errno.ENOSPC, "limits", "user.max_*_namespaces"),
        ("files", errno.EIO, "a step of its making fails", "sandrun doctor"),
    ],
)
def test_other_errors_of_steps(step: str, code: int, public: str, remedy: str) -> None:
    fault = faults.of_step(step, code)
    assert public in fault.for_clients
    assert remedy in fault.remedy


def cgroup_error() -> CgroupError:
    try:
        raise CgroupError("cannot make /sys/fs/cgroup/x") from OSError(
            errno.ENOSPC, "No space", "/sys/fs/cgroup/x"
        )
    except CgroupError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        SandboxError(faults.of_step("seccomp", 524)),
        SandboxError(faults.of_stuck([os.getpid()], 5.0), is_stuck=True),
        ZygoteError("/usr/bin/python3 did not become a zygote"),
        SlotsRetiredError(),
        OSError(errno.EMFILE, "Too many open files", "/proc/self/x"),
        cgroup_error(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_client_learns_no_path_step_or_number(error: Exception) -> None:
    told = circuit.fault_of(error).for_clients
    assert told.startswith(faults.NO_SANDBOX)
    assert "/" not in told
    assert "errno" not in told
    assert "seccomp" not in told
    assert not any(letter.isdigit() for letter in told)


def test_the_errno_behind_a_cgroup_counts() -> None:
    fault = circuit.fault_of(cgroup_error())
    assert "limits" in fault.public
    assert "/sys/fs/cgroup/x" in fault.found


def test_a_step_that_does_not_return_is_read_from_its_process() -> None:
    command = [sys.executable, "-P", "-c", SETS_ITS_NAME]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        assert f"step seccomp, process {process.pid}" in str(faults.of_stuck([process.pid], 5.0))
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout.readline() == b"back\n"
        assert "step seccomp" not in str(faults.of_stuck([process.pid], 5.0))
        process.stdin.close()
    assert faults.state_of(process.pid) == "gone"


def test_a_state_that_no_signal_ends_is_told(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (no_new_privs) D 1 7 7 0 -1")
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "stat").write_text("8 (a) b\n) S 1 8 8 0 -1")
    text = str(faults.of_stuck([7, 8, 9], 5.0, tmp_path))
    assert "step no_new_privs, process 7: in a system call that no signal ends (state D)" in text
    assert "step unknown, process 8: asleep" in text
    assert "process 9" not in text


def test_the_process_behind_a_pidfd() -> None:
    pidfd = os.pidfd_open(os.getpid())
    assert pidfds.pid_of(pidfd) == os.getpid()
    os.close(pidfd)
