"""When jobs are cancelled, or executors stopped or killed, nothing is left and every client is told."""

import contextlib
import os
import pwd
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from sandrun_executor.access import Access
from support import machine
from support.executor import ENDS_WITH_PARENT, PYTHON, USER, ExecutorProcess, RefusedError

SLEEPER = (
    "import os\nfor n in range(3): os.fork()\nprint('up', flush=True)\nwhile True: os.read(os.pipe()[0], 1)"
)


def _running(executor: ExecutorProcess, count: int) -> bool:
    return executor.describe().running == count


@pytest.mark.parametrize("moment", ["at once", "when it runs"])
def test_hanging_up_cancels(executor: ExecutorProcess, moment: str) -> None:
    job = executor.start_job(SLEEPER)
    if moment == "when it runs":
        job.printed(b"up")
    job.hang_up()
    assert machine.eventually(lambda: _running(executor, 0))
    assert machine.eventually(lambda: machine.at_rest(executor))


def test_sixteen_at_once_see_three_descriptors(executor: ExecutorProcess) -> None:
    program = (
        "import os\nprint(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1], os.getcwd(), flush=True)\n"
        "os.read(os.pipe()[0], 1)"
    )
    jobs = [executor.start_job(program, warm=number % 2 == 0) for number in range(16)]
    for job in jobs:
        job.printed(b"\n")
        assert bytes(job.logs[1]) == b"[0, 1, 2] /work\n"
    with pytest.raises(RefusedError, match="full"):
        executor.run_job("1")
    for job in jobs:
        job.hang_up()
    assert machine.eventually(lambda: _running(executor, 0))


def test_usage_is_told_while_a_job_runs(executor: ExecutorProcess) -> None:
    job = executor.start_job("x = bytearray(30 << 20)\nwhile True: pass")
    first, second = job.used(), job.used()
    job.hang_up()
    assert first.memory_bytes > 30 << 20
    assert second.cpu_seconds > first.cpu_seconds > 0


def test_stopping_tells_every_client_and_leaves_nothing() -> None:
    with ExecutorProcess(slots=4) as own:
        jobs = [own.start_job(SLEEPER).printed(b"up") for _ in range(4)]
        inside = machine.descendants(own.pid)
        assert machine.cgroups(own)
        own.signal(signal.SIGTERM)
        assert [job.wait().outcome.verdict for job in jobs] == ["cancelled"] * 4
        assert own.wait() == 0
        assert not inside & machine.processes().keys()
        assert machine.cgroups(own) == set()
        assert not own.socket.exists()


def test_stopping_while_it_starts_leaves_nothing() -> None:
    with contextlib.closing(ExecutorProcess()) as own:
        own.process = subprocess.Popen(
            [*ENDS_WITH_PARENT, *PYTHON, "-m", "sandrun_executor"],
            env={**own._environment, "NOTIFY_SOCKET": ""},
            cwd=own.folder,
        )
        assert machine.eventually(lambda: bool(machine.cgroups(own)))
        assert own.stop() == 0
        assert machine.cgroups(own) == set()


def test_a_killed_executor_leaves_nothing_after_the_next_start() -> None:
    with ExecutorProcess(slots=4) as own:
        jobs = [own.start_job(SLEEPER).printed(b"up") for _ in range(4)]
        # What a job has forked to the end may still be about to fork.
        assert machine.eventually(lambda: len(machine.descendants(own.pid)) >= 1 + 4 * 9)
        inside = machine.descendants(own.pid)
        own.kill()
        assert own.socket.exists()
        for job in jobs:
            with pytest.raises(ConnectionError):
                job.wait()
        own.start()
        assert machine.eventually(lambda: not inside & machine.processes().keys())
        state = machine.settled(own)
        assert state.processes == 1 + 2 * own.parked
        # As many as a fresh start makes.
        with ExecutorProcess(slots=4) as fresh:
            assert state.cgroups == machine.settled(fresh).cgroups
        assert own.run_job("print(1)").ok() == b"1\n"
    assert machine.cgroups(own) == set()


def test_a_killed_executor_takes_its_processes_along() -> None:
    with ExecutorProcess(slots=2) as own:
        own.start_job(SLEEPER).printed(b"up").hang_up()
        job = own.start_job(SLEEPER).printed(b"up")
        inside = machine.descendants(own.pid)
        own.kill()
        job.hang_up()
        assert machine.eventually(lambda: not inside & machine.processes().keys())
        own.start()


def test_a_killed_zygote_is_replaced() -> None:
    with ExecutorProcess(slots=2) as own:
        zygote = next(pid for pid, process in machine.processes().items() if process.parent == own.pid)
        pidfd = os.pidfd_open(zygote)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        assert machine.eventually(lambda: zygote not in machine.descendants(own.pid) or _zombie(zygote))
        assert own.run_job("print(1)").ok() == b"1\n"
        assert machine.settled(own).processes == 1 + 2 * own.parked


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_second_executor_on_one_socket_is_refused(executor: ExecutorProcess) -> None:
    second = subprocess.run(
        [*PYTHON, "-m", "sandrun_executor"],
        env={**executor._environment, "NOTIFY_SOCKET": ""},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert b"another executor serves" in second.stderr
    assert executor.run_job("print(1)").ok() == b"1\n"


def test_the_socket_is_for_root_and_one_group(executor: ExecutorProcess) -> None:

    info = executor.socket.stat()
    assert stat.S_IMODE(info.st_mode) == 0o660
    assert info.st_gid == pwd.getpwnam(USER).pw_gid
    assert info.st_uid == 0


_CONNECT = """
import os, socket, sys
path, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([]); os.setgid(gid); os.setuid(uid)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(10)
try:
    s.connect(path)
    s.send(b'\\x82\\xa4type\\xa8Describe\\xa7version\\x01')
    print('answered' if s.recv(100) else 'hung up')
except PermissionError: print('denied')
except ConnectionError: print('hung up')
"""


@pytest.mark.parametrize(
    ("uid", "gid", "expected"),
    [
        (12345, 12345, {"denied"}),
        (12345, 65534, {"hung up"}),  # in the group, but nobody who may connect
        (65534, 65534, {"answered"}),
        (0, 0, {"answered"}),
    ],
)
def test_peers_are_checked(executor: ExecutorProcess, uid: int, gid: int, expected: set[str]) -> None:
    assert Access.for_user(USER).uids == {0, 65534}
    answer = subprocess.run(
        ["/usr/bin/python3", "-c", _CONNECT, str(executor.socket), str(uid), str(gid)],
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert answer.stdout.decode().strip() in expected


def test_the_log_says_nothing_of_a_job(executor: ExecutorProcess) -> None:
    canary = "canary-7f3a"
    files = {f"{canary}.py": f"print('{canary}'); open('{canary}.out', 'w'); 1/0".encode()}
    executor.run_job(files, f"{canary}.py", args=[canary], env={"X": canary}, stdin=canary.encode())
    executor.run_job(files, f"missing-{canary}.py", outputs=[canary])
    assert canary not in executor.log.read_text()
