"""Both daemons under `sandrun up`: separate lives, separate ends, no traces."""

import json
import os
import pwd
import re
import signal
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_admin import admin
from sandrun_shared import kernel_log
from sandrun_shared.admin import socket_of
from support import machine
from support.service import USER, Service

SLEEPER = "import os; print('up', flush=True); os.read(os.pipe()[0], 1)"
CANARY = "canary-51c2"


@pytest.fixture(scope="module")
def service(_root: None) -> Iterator[Service]:
    """One that the tests which do not end it share."""
    with Service() as running:
        yield running


def _kill(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def _gone(service: Service) -> bool:
    return (
        not machine.of_jobs(service) and not machine.cgroups(service) and not service.socket.parent.exists()
    )


def test_the_api_has_no_privilege(service: Service) -> None:
    status = Path(f"/proc/{service.daemon('sandrun_api')}/status").read_text()
    user = pwd.getpwnam(USER)
    assert re.search(r"^Uid:\t(.*)$", status, re.M)[1].split() == [str(user.pw_uid)] * 4
    assert re.search(r"^Gid:\t(.*)$", status, re.M)[1].split() == [str(user.pw_gid)] * 4
    assert re.search(r"^Groups:\t(.*)$", status, re.M)[1].split() == []
    assert {int(value, 16) for value in re.findall(r"^Cap\w+:\t(\w+)$", status, re.M)} == {0}
    assert "NoNewPrivs:\t1" in status


def test_a_killed_executor_is_told_of_and_replaced(service: Service) -> None:
    job = service.submit(SLEEPER)
    service.until(job, lambda status: status["status"] == "running")
    waiting = [service.submit("print(1)") for _ in range(3)]
    _kill(service.daemon("sandrun_executor"))
    status = service.until(job, lambda status: status["status"] == "failed")
    assert status["verdict"] == "executor_lost"
    assert machine.eventually(lambda: service.client.get("/health").status_code == 200)
    # Who waited runs now, or was told the same.
    ended = [
        service.until(job, lambda status: status["status"] in ("completed", "failed")) for job in waiting
    ]
    assert {status["verdict"] for status in ended} <= {"ok", "executor_lost"}
    assert service.run("print(2)")["stdout"] == "2\n"


def test_it_warns_of_a_kernel_that_quotes_jobs(service: Service) -> None:
    others = kernel_log.others()
    warning = f"the kernel's log may get file names and code of jobs: {kernel_log.mend(others)}"
    assert (warning in service.log.read_text() + service.said) is bool(others)


def test_neither_daemon_keeps_descriptors(service: Service) -> None:
    pids = [service.daemon(name) for name in ("sandrun_api", "sandrun_executor")]

    def use() -> None:
        assert service.run("print(1)")["verdict"] == "ok"
        job = service.submit("open('out', 'w').write('x' * 1000)")
        assert service.status(job, wait=30)["verdict"] == "ok"
        assert len(service.client.get(f"/download/{job}/out").content) == 1000
        assert service.client.delete(f"/jobs/{job}").status_code == 204
        assert service.client.post("/submit", files={"files": ("x.zip", b"no zip")}).status_code == 400

    def opened() -> list[Counter[str]]:
        return [Counter(machine.descriptors(pid)) for pid in pids]

    def no_more_than(before: list[Counter[str]]) -> bool:
        return all(now <= then for now, then in zip(opened(), before, strict=True))

    for _ in range(3):
        use()
    before = opened()  # of a sandbox that is still being ended too: more than this is a leak
    for _ in range(20):
        use()
    assert machine.eventually(lambda: no_more_than(before)), (before, opened())


def test_no_log_tells_of_a_job(service: Service) -> None:
    name = f"{CANARY}.py"
    code = f"import sys; print('{CANARY}', sys.argv); open('{CANARY}.out', 'w').write('{CANARY}'); 1 / 0"
    job = service.submit(code, name, args=[CANARY], env={"X": CANARY})
    assert service.status(job, wait=30)["verdict"] == "nonzero_exit"
    assert CANARY in service.client.get(f"/logs/{job}").text
    assert CANARY in service.client.get(f"/download/{job}/{CANARY}.out").text
    for refused in (f'{{"entrypoint": "missing-{name}"}}', CANARY):
        answer = service.client.post(
            "/submit", files={"files": (name, code.encode())}, data={"manifest": refused}
        )
        assert answer.status_code == 400
    service.client.get(f"/{CANARY}", params={"x": CANARY})
    assert CANARY not in service.log.read_text() + service.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_orderly_end_leaves_nothing(number: signal.Signals) -> None:
    mounts = machine.mounts()
    with Service() as own:
        job = own.submit(SLEEPER)
        own.until(job, lambda status: status["status"] == "running")
        inside = machine.descendants(own.pid)
        os.kill(own.pid, number)
        assert own.wait() == 0
        assert "Traceback" not in own.log.read_text()
        assert not inside & machine.processes().keys()
        assert _gone(own)
        assert machine.mounts() == mounts


def test_a_killed_supervisor_takes_both_along() -> None:
    with Service() as own:
        own.until(own.submit(SLEEPER), lambda status: status["status"] == "running")
        inside = machine.descendants(own.pid)
        _kill(own.pid)
        own.wait()
        assert machine.eventually(lambda: not inside & machine.processes().keys())
        own.start()
        assert own.run("print(3)")["stdout"] == "3\n"
        assert own.interrupt() == 0
        assert _gone(own)


def test_a_second_one_is_refused(service: Service) -> None:
    with pytest.raises(AssertionError, match="cannot listen"), Service(port=service.port):
        pass
    assert service.run("print(4)")["stdout"] == "4\n"


UNSET = {
    f"SANDRUN_QUOTA__{key}": default
    for key, default in (
        ("CONCURRENT_JOBS", "2"),
        ("QUEUED_JOBS", "10"),
        ("JOBS_PER_HOUR", "20"),
        ("CPU_SECONDS_PER_MINUTE", "10"),
    )
}


def test_the_operator_asks_the_api(service: Service) -> None:
    path = socket_of(str(service.socket))
    job = service.submit(SLEEPER)
    service.until(job, lambda status: status["status"] == "running")
    listed = admin.ask(path, command="jobs")["jobs"]
    assert "running" in {item["state"] for item in listed}
    assert job not in json.dumps(listed)
    folder, own = path.parent.lstat(), path.lstat()
    user = pwd.getpwnam(USER).pw_uid
    assert (folder.st_uid, stat.S_IMODE(folder.st_mode)) == (user, 0o700)
    assert (own.st_uid, stat.S_IMODE(own.st_mode)) == (user, 0o600)
    assert admin.ask(path, command="cancel", target="all") == {"cancelled": 1}
    assert service.status(job, wait=30)["detail"] == "cancelled by the operator"


def _limit(service: Service, **headers: str) -> object:
    return service.client.get("/stats", headers=headers).json()["your_quota"]["max_jobs_per_hour"]


def test_ones_own_machine_has_no_quotas_and_is_told() -> None:
    with Service(environment=UNSET) as own:
        assert "requests of this machine are exempt from quotas (--quotas keeps them)" in own.log.read_text()
        assert (_limit(own), _limit(own, via="1.1 proxy")) == (None, 20)
        for _ in range(25):
            assert own.run("pass")["verdict"] == "ok"


@pytest.mark.parametrize("way", ["flag", "set", "proxy"])
def test_quotas_are_kept_where_they_are_wanted(way: str) -> None:
    environment = dict(UNSET)
    if way == "set":
        environment["SANDRUN_QUOTA__JOBS_PER_HOUR"] = "19"
    if way == "proxy":
        environment["SANDRUN_API__BEHIND_PROXY"] = "true"
    own = Service(environment=environment)
    if way == "flag":
        own.command = [*own.command, "--quotas"]
    with own:
        assert "exempt" not in own.log.read_text()
        assert _limit(own) == (19 if way == "set" else 20)
