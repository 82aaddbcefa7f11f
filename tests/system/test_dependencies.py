"""Packages that a job requires: installed in a separate phase, cached, found by the interpreter."""

import asyncio
import errno
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_executor.packages.layers import LayerMounts
from sandrun_sandbox import linux_unsafe
from sandrun_shared.jobs import Installer, Verdict
from sandrun_shared.protocol import Installed, Usage
from support import machine
from support.environments import Place
from support.environments import wheel as one_wheel
from support.executor import UIDS, ExecutorProcess, JobConnection, RefusedError, Result
from support.registry import Registry, address, sdist, wheel

GREETING = {"greeting.py": "def main():\n    print('hello from a package')\n"}
NOBODY = 65534
PROGRAM = "import greeting\ngreeting.main()\n"
WHEEL = wheel("greeting", "1.0", GREETING, ["greet = greeting:main"])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry"), address(2)) as served:
        served.add(WHEEL)
        yield served


def settings(registry: Registry, **more: object) -> dict[str, object]:
    """Those of an executor that may install from the registry and from a host that is away."""
    return {
        "hosts": {"registry.test": registry.address, "away.test": address(9), "other.test": registry.address},
        "package_hosts": "registry.test, away.test",
        "package_networks": f"{registry.address}/32, {address(9)}/32",
        "package_index_url": "https://registry.test/simple/",
        "package_npm_url": "https://registry.test/npm/",
        "package_ca": registry.certificate,
        "install_memory_mb": 256,
        "install_disk_mb": 64,
        "parked": 1,
        **more,
    }


@pytest.fixture(scope="module")
def installing(registry: Registry) -> Iterator[ExecutorProcess]:
    with ExecutorProcess(**settings(registry)) as running:
        yield running


def run(executor: ExecutorProcess, required: str, program: str = PROGRAM, **options: object) -> Result:
    requires = (Installer.uv, {"requirements.txt": required.encode()})
    return executor.run_job(program, "main.py", requires=requires, **options)


def failed(result: Result) -> tuple[str, str]:
    """The reason and the log of a job whose packages could not be installed."""
    assert result.outcome.verdict is Verdict.setup_error, (result.outcome, result.stderr)
    assert result.outcome.exit_code is None
    assert result.stdout == b""
    return result.outcome.detail, result.stderr.decode()


def test_packages_are_installed_once_and_used_again(installing: ExecutorProcess, registry: Registry) -> None:
    first = run(installing, "greeting==1.0")
    assert first.ok() == b"hello from a package\n"
    assert first.outcome.setup_cpu_seconds > 0
    asked = len(registry.asked)
    second = run(installing, "greeting==1.0")
    assert second.ok() == b"hello from a package\n"
    assert len(registry.asked) == asked
    assert second.outcome.setup_cpu_seconds == 0


def test_packages_may_be_installed_for_a_job_that_comes_later(
    installing: ExecutorProcess, registry: Registry
) -> None:
    line = registry.add(wheel("ahead", "1.0", {"ahead.py": "NAME = 'ahead'"}))
    requires = (Installer.uv, {"requirements.txt": line.encode()})
    for first in (True, False):
        asked = len(registry.asked)
        job = installing.start_job("print(1)", "main.py", requires=requires, install_only=True)
        job.until(lambda job: any(isinstance(event, Installed) for event in job.events))
        job.hang_up()
        (event,) = [event for event in job.events if not isinstance(event, Usage)]
        assert isinstance(event, Installed)
        assert (event.setup_cpu_seconds > 0, len(registry.asked) > asked) == (first, first)
    result = run(installing, line, "import ahead; print(ahead.NAME)")
    assert (result.ok(), result.outcome.setup_cpu_seconds) == (b"ahead\n", 0)
    job = installing.start_job(
        "", "main.py", requires=(Installer.uv, {"requirements.txt": b"nowhere"}), install_only=True
    )
    failed(job.wait())


def test_a_cold_job_and_other_programs_find_them(installing: ExecutorProcess) -> None:
    program = (
        "import subprocess, sys\n"
        "for command in (['greet'], [sys.executable, '-c', 'import greeting; greeting.main()']):\n"
        "    print(subprocess.run(command, capture_output=True, check=True).stdout)\n"
    )
    for warm in (True, False):
        result = run(installing, "greeting==1.0", program, warm=warm)
        assert result.ok() == b"b'hello from a package\\n'\n" * 2


def test_the_path_is_that_of_a_bare_interpreter(installing: ExecutorProcess) -> None:
    program = "import sys; print(sys.path)"
    warm, cold = (run(installing, "greeting==1.0", program, warm=warm).ok() for warm in (True, False))
    assert warm == cold
    assert b"/usr/packages/installed/lib/python3" in warm


def test_a_source_distribution_is_built(installing: ExecutorProcess, registry: Registry) -> None:
    line = registry.add(sdist("built", "2.0", "say('built here')"))
    assert run(installing, line, "import built; print(built.SAID)").ok() == b"['built here']\n"


@pytest.mark.parametrize("warm", [True, False])
def test_what_a_package_runs_at_every_start_is_confined(
    installing: ExecutorProcess, registry: Registry, warm: bool
) -> None:
    hook = "import os, sys; sys.seen = (os.getresuid(), open('/proc/self/status').read())\n"
    line = registry.add(wheel("hooked", "1.0", {"hooked.pth": hook}))
    program = (
        "import os, sys\n"
        "uids, status = sys.seen\n"
        "print(set(uids) == {os.getuid()} != {0}, 'Seccomp:\\t2' in status, 'CapEff:\\t' + 16 * '0' in status)\n"
    )
    assert run(installing, line, program, warm=warm).ok() == b"True True True\n"


def test_a_layer_is_read_only(installing: ExecutorProcess) -> None:
    program = (
        "import greeting, os\n"
        "for action in (lambda: open(greeting.__file__, 'a'), lambda: os.unlink(greeting.__file__),\n"
        "               lambda: os.chmod(os.path.dirname(greeting.__file__), 0o777)):\n"
        "    try:\n        action()\n    except OSError as error:\n        print(error.errno)\n"
    )
    assert set(run(installing, "greeting==1.0", program).ok().split()) <= {b"1", b"13", b"30"}


def test_a_package_that_does_not_exist(installing: ExecutorProcess) -> None:
    detail, log = failed(run(installing, "no-such-package"))
    assert detail == "the installer failed: see stderr"
    assert "no-such-package" in log


def test_a_hash_that_does_not_match(installing: ExecutorProcess) -> None:
    detail, log = failed(run(installing, "greeting==1.0 --hash=sha256:" + "0" * 64))
    assert detail == "the installer failed: see stderr"
    assert "hash" in log.lower()
    assert hashlib.sha256(WHEEL[1]).hexdigest() in log


def test_a_host_that_is_not_on_the_list(installing: ExecutorProcess, registry: Registry) -> None:
    asked = len(registry.asked)
    detail, log = failed(run(installing, "greeting @ https://other.test/files/" + WHEEL[0]))
    assert "does not let it reach" in detail
    assert "refused other.test: not on this server's list of package hosts" in log
    assert len(registry.asked) == asked


def test_a_registry_that_is_away(installing: ExecutorProcess) -> None:
    detail, log = failed(run(installing, "greeting @ https://away.test/files/" + WHEEL[0]))
    assert "could not be reached" in detail
    assert "unreachable away.test" in log


def test_more_than_there_is_room_for(installing: ExecutorProcess, registry: Registry) -> None:
    line = registry.add(wheel("huge", "1.0", {"huge.py": "#" * (80 << 20)}))
    detail, _ = failed(run(installing, line))
    assert detail == "the packages take more than 64 MiB"


def test_a_build_that_runs_for_ever(registry: Registry) -> None:
    line = registry.add(sdist("endless", "1.0", "import time\nwhile True: time.sleep(1)"))
    with ExecutorProcess(**settings(registry, install_seconds=3.0)) as executor:
        detail, _ = failed(run(executor, line))
    assert detail == "installing packages took more than 3 seconds"


def test_jobs_that_want_the_same_share_one_installation(
    installing: ExecutorProcess, registry: Registry
) -> None:
    line = registry.add(wheel("shared", "1.0", {"shared.py": "NAME = 'shared'"}), folder="/held")
    registry.hold.clear()
    registry.held.clear()
    requires = (Installer.uv, {"requirements.txt": line.encode()})
    program = "import shared; print(shared.NAME)"
    jobs = [installing.start_job(program, "main.py", requires=requires) for _ in range(4)]
    assert registry.held.wait(100)
    jobs.pop().hang_up()  # one of them wants it no more: the others still get it
    registry.hold.set()
    results = [job.wait() for job in jobs]
    assert [result.ok() for result in results] == [b"shared\n"] * 3
    assert registry.count("/simple/shared/") == 1
    assert sum(result.outcome.setup_cpu_seconds > 0 for result in results) <= 1


def test_the_proxy_is_nobody(installing: ExecutorProcess, registry: Registry) -> None:
    line = registry.add(wheel("watched", "1.0", {"watched.py": ""}), folder="/held")
    registry.hold.clear()
    registry.held.clear()
    others = machine.descendants(installing.pid)
    job = installing.start_job("", "main.py", requires=(Installer.uv, {"requirements.txt": line.encode()}))
    assert registry.held.wait(100)
    programs = {
        pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in machine.descendants(installing.pid) - others
    }
    (proxy,) = (pid for pid, program in programs.items() if b"sandrun_helpers.package_proxy" in program)
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{proxy}/status").read_text().splitlines()
        if ":\t" in line
    )
    uids = set(status["Uid"].split()) | set(status["Gid"].split())
    assert len(uids) == 1
    assert installing.first_uid <= int(uids.pop()) < installing.first_uid + UIDS
    assert [int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [0] * 5
    assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"].strip()) == ("1", "2", "")
    registry.hold.set()
    assert job.wait().outcome.verdict == "ok"


class Manager:
    """Starts proxies as systemd does: for each connection one, which never was root."""

    PROGRAM = (
        *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs"),
        *(sys.executable, "-I", "-m", "sandrun_helpers.package_proxy"),
    )

    def __init__(self, path: Path, **variables: str) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self._variables = {"PATH": "/usr/bin", **variables}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()

    def accept(self, executor: ExecutorProcess) -> threading.Thread:
        """Start one as soon as it is asked for."""

        def work() -> None:
            with self._listener.accept()[0] as connection:
                command = [*executor.prefix, *self.PROGRAM]
                process = subprocess.Popen(
                    command,
                    stdin=connection.fileno(),
                    cwd="/",
                    env=self._variables,
                    stderr=subprocess.DEVNULL,
                )
                self.started.append(process)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def __enter__(self) -> "Manager":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


def test_a_service_manager_may_start_the_proxies(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "packages.sock"
    with Manager(path) as manager, ExecutorProcess(**settings(registry, package_proxy=path)) as executor:
        accepting = manager.accept(executor)
        assert run(executor, "greeting==1.0").ok() == b"hello from a package\n"
        accepting.join()
        assert manager.started.pop().wait(20) == 0  # the executor hung up on it


def test_hanging_up_ends_an_installation(installing: ExecutorProcess, registry: Registry) -> None:
    before = machine.settled(installing)
    line = registry.add(wheel("unwanted", "1.0", {"unwanted.py": ""}), folder="/held")
    registry.hold.clear()
    registry.held.clear()
    job = installing.start_job("", "main.py", requires=(Installer.uv, {"requirements.txt": line.encode()}))
    assert registry.held.wait(100)
    job.hang_up()
    machine.assert_unchanged(installing, before, machine.shared_memory())
    registry.hold.set()


def test_a_stop_ends_an_installation_and_leaves_nothing(registry: Registry) -> None:
    line = registry.add(wheel("cut", "1.0", {"cut.py": ""}), folder="/held")
    registry.hold.clear()
    registry.held.clear()
    with ExecutorProcess(**settings(registry)) as executor:
        requires = (Installer.uv, {"requirements.txt": line.encode()})
        job = executor.start_job("", "main.py", requires=requires)
        assert registry.held.wait(100)
        executor.signal(signal.SIGTERM)
        assert job.wait().outcome.verdict is Verdict.cancelled
        assert executor.wait() == 0
        assert machine.cgroups(executor) == set()
        assert b"cannot remove" not in executor.log.read_bytes()
        registry.hold.set()


def test_a_killed_executor_leaves_no_proxy_and_no_layer(registry: Registry) -> None:
    line = registry.add(wheel("orphan", "1.0", {"orphan.py": ""}), folder="/held")
    registry.hold.clear()
    registry.held.clear()
    with ExecutorProcess(**settings(registry)) as executor:
        before = machine.settled(executor)
        run(executor, "greeting==1.0").ok()
        requires = (Installer.uv, {"requirements.txt": line.encode()})
        job = executor.start_job("", "main.py", requires=requires)
        assert registry.held.wait(100)
        executor.signal(signal.SIGKILL)
        executor.wait()
        job.hang_up()
        assert machine.eventually(lambda: not machine.of_jobs(executor))
        executor.start()
        assert machine.settled(executor).cgroups == before.cgroups
        registry.hold.set()
        asked = registry.count("/simple/greeting/")
        assert run(executor, "greeting==1.0").ok() == b"hello from a package\n"
        assert registry.count("/simple/greeting/") > asked  # what the dead one had is gone


def needs(executor: ExecutorProcess, installer: Installer) -> None:
    """Go on only where Debian's package is installed, as deploy/setup.sh --dev does."""
    if installer not in executor.describe().installers:
        pytest.skip(f"{installer.value} is not installed")


def test_packages_for_node(installing: ExecutorProcess, registry: Registry) -> None:
    needs(installing, Installer.npm)
    registry.add_npm("deeper", {"index.js": "module.exports = 'deep';"})
    registry.add_npm(
        "left", {"index.js": "module.exports = require('deeper') + ' left';"}, {"deeper": "^1.0.0"}
    )
    required = (Installer.npm, {"package.json": b'{"dependencies": {"left": "^1.0.0"}}'})
    for name, program in (
        ("main.js", "console.log(require('left'))"),
        ("main.mjs", "import left from 'left'; console.log(left)"),
    ):
        result = installing.run_job(program, name, "node", requires=required)
        assert result.ok() == b"deep left\n"


def test_packages_beside_those_of_an_environment(registry: Registry, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.build()
    folders = {"environments_dir": place.built, "environment_definitions": place.own}
    program = (
        "import greeting, one, os, subprocess, sys\n"
        "print(sys.executable, one.__file__)\n"
        "sys.stdout.flush()\n"
        "subprocess.run(['greet'], check=True)\n"
    )
    with ExecutorProcess(**settings(registry, **folders)) as executor:
        said = run(executor, "greeting==1.0", program, environment="mine").ok().decode()
    assert said.startswith("/usr/environment/bin/python3 /usr/environment/lib/")
    assert said.endswith("hello from a package\n")


def test_packages_are_for_one_build_of_an_environment(registry: Registry, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.build()
    folders = {"environments_dir": place.built, "environment_definitions": place.own}
    program = "import later, one.rarely; print(one.rarely.version)"
    line = registry.add(wheel("later", "1.0", {"later.py": ""}), folder="/held")
    with ExecutorProcess(**settings(registry, installs=2, **folders)) as executor:
        registry.hold.clear()
        registry.held.clear()
        requires = (Installer.uv, {"requirements.txt": line.encode()})
        job = executor.start_job(program, "main.py", requires=requires, environment="mine")
        assert registry.held.wait(100)
        place.lock(one_wheel(place.wheels, "2.0"), "2.0")
        place.build()
        other = run(executor, "greeting==1.0", "import one.rarely as r; print(r.version)", environment="mine")
        assert other.ok() == b"2.0\n"
        registry.hold.set()
        assert job.wait().ok() == b"1.0\n"  # the layer is for the old build, so the new one is not used
        asked = registry.count("/simple/later/")
        for _ in range(2):
            assert run(executor, line, program, environment="mine").ok() == b"2.0\n"
        assert registry.count("/simple/later/") == asked + 1


def test_packages_for_ruby(installing: ExecutorProcess, registry: Registry, tmp_path: Path) -> None:
    needs(installing, Installer.bundler)
    registry.add_gem(tmp_path, "jewel", "module Jewel\n  NAME = 'a jewel'\nend\n")
    required = (Installer.bundler, {"Gemfile": b"source 'https://registry.test'\ngem 'jewel'\n"})
    for first in ("", "require 'bundler/setup'\n"):
        result = installing.run_job(
            first + "require 'jewel'\nputs Jewel::NAME", "main.rb", "ruby", requires=required
        )
        assert result.ok() == b"a jewel\n", result


def test_without_hosts_nothing_is_installed(executor: ExecutorProcess) -> None:
    assert executor.describe().installers == ()
    with pytest.raises(RefusedError, match="unsupported"):
        run(executor, "greeting")


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("package_networks", "10.0.0.0/8, nonsense", "package_networks"),
        ("package_netrc", "/nonexistent", "package_netrc: No such file"),
        ("package_netrc", "no-such-credential", "package_netrc: no-such-credential: neither a path"),
        ("package_hosts", "https://registry.test", "package_hosts"),
    ],
)
def test_settings_that_cannot_be_used(setting: str, value: str, word: str) -> None:
    given = {"package_hosts": "registry.test", setting: value}
    with pytest.raises(AssertionError, match=word) as caught, ExecutorProcess(**given):
        pass
    assert "Traceback" not in str(caught.value)


def test_credentials_are_for_the_registry_alone(registry: Registry, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine registry.test login reader password canary-5f3a\n")
    look = (
        "import os\n"
        "paths = [f'/proc/{n}/{f}' for n in os.listdir('/proc') if n.isdigit() for f in ('environ', 'cmdline')]\n"
        "for top in ('/usr/packages', '/work', '/tmp', '/home', '/etc'):\n"
        "    paths += [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]\n"
        "found = []\n"
        "for path in filter(os.path.exists, paths):\n"
        "    text = open(path, 'rb').read()\n"
        "    if b'canary-' + b'5f3a' in text or b'cmVh' + b'ZGVy' in text: found.append(path)\n"
        "assert len(paths) > 10\n"
    )
    line = registry.add(sdist("curious", "1.0", look + "say((found, 'HTTPS_PROXY' in os.environ))"))
    program = (
        look
        + "import curious; print(curious.SAID, found, [n for n in os.environ if 'PROXY' in n or 'UV' in n])"
    )
    with ExecutorProcess(**settings(registry, package_netrc=netrc)) as executor:
        assert run(executor, line, program).ok() == b"[([], True)] [] []\n"
        assert b"canary" not in executor.log.read_bytes()
    assert "Basic cmVhZGVyOmNhbmFyeS01ZjNh" in registry.authorizations


def memory_holds(pid: int, word: bytes) -> bool:
    """Whether a process has the word in memory that it may write to (proc_pid_maps(5), proc_pid_mem(5))."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            bounds, mode = line.split()[:2]
            first, last = (int(bound, 16) for bound in bounds.split("-"))
            if mode.startswith("rw"):
                memory.seek(first)
                try:
                    if word in (memory.read(last - first) or b""):
                        return True
                except OSError:  # a mapping of a device
                    continue
    return False


def held_installation(executor: ExecutorProcess, registry: Registry, name: str) -> JobConnection:
    """A job whose installation waits for the registry, which has asked for the password by then."""
    line = registry.add(wheel(name, "1.0", {f"{name}.py": ""}), folder="/held")
    registry.hold.clear()
    registry.held.clear()
    job = executor.start_job("", "main.py", requires=(Installer.uv, {"requirements.txt": line.encode()}))
    assert registry.held.wait(100)
    return job


def test_root_reads_no_password(registry: Registry, tmp_path: Path) -> None:
    """Neither at its start nor for an installation: the proxy has it in its memory, and root has not."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine registry.test login reader password canary-8d21\n")
    netrc.chmod(0o600)
    with ExecutorProcess(**settings(registry, package_netrc=netrc)) as executor:
        job = held_installation(executor, registry, "sealed")
        (proxy,) = (
            pid
            for pid in machine.descendants(executor.pid)
            if b"sandrun_helpers.package_proxy" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        holders = {pid for pid in (proxy, executor.pid) if memory_holds(pid, b"canary-8d21")}
        registry.hold.set()
        assert job.wait().ok() == b""
        assert holders == {proxy}
        netrc.write_text("machine registry.test login reader password canary-new\n")
        assert run(executor, registry.add(wheel("later", "1.0", {"later.py": ""})), "").ok() == b""
    assert "Basic " + b64encode(b"reader:canary-new").decode() in registry.authorizations


def test_a_file_of_credentials_that_is_none(registry: Registry, tmp_path: Path) -> None:
    """The proxy says so at the start, without a word of what is in the file."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine registry.test\n  login reader pass canary-77aa\n")
    with (
        pytest.raises(AssertionError, match="package_netrc: line 2") as caught,
        ExecutorProcess(**settings(registry, package_netrc=netrc)),
    ):
        pass
    assert "Traceback" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_credentials_may_be_those_of_the_proxies_unit(registry: Registry, tmp_path: Path) -> None:
    """root knows the name alone; systemd makes the folder and passes it to each proxy."""
    path, folder = tmp_path / "packages.sock", Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    netrc = folder / "packages.netrc"
    netrc.write_text("machine registry.test login unit password canary-c3c3\n")
    netrc.chmod(0o400)
    os.chown(netrc, NOBODY, NOBODY)
    given = settings(registry, package_proxy=path, package_netrc=netrc.name)
    try:
        with (
            Manager(path, CREDENTIALS_DIRECTORY=str(folder)) as manager,
            ExecutorProcess(**given) as executor,
        ):
            manager.accept(executor)
            job = held_installation(executor, registry, "units")
            assert not memory_holds(executor.pid, b"canary-c3c3")
            registry.hold.set()
            assert job.wait().ok() == b""
            assert "Basic " + b64encode(b"unit:canary-c3c3").decode() in registry.authorizations
            netrc.rename(folder / "other")
            manager.accept(executor)
            detail, _ = failed(run(executor, registry.add(wheel("no", "1.0", {"no.py": ""}))))
            assert detail == "packages cannot be installed now: package_netrc: FileNotFoundError"
            assert [process.wait(20) for process in manager.started] == [0, 1]
    finally:
        shutil.rmtree(folder)


def test_a_layer_that_cannot_be_handed_out_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def scenario() -> list[str]:
        keeper = LayerMounts("")
        try:
            with pytest.raises(OSError, match="Too many open files"):
                await keeper.create(1 << 20, 0)
            return await keeper._do(lambda: os.listdir("/"))
        finally:
            keeper.close()

    monkeypatch.setattr(linux_unsafe, "open_tree_clone", refuse)
    assert asyncio.run(scenario()) == []
