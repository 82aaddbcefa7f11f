"""Jobs in environments: modules imported ahead, new builds followed, nothing shared between jobs."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_admin import builds
from sandrun_shared import environments
from support.attempts import attempt
from support.environments import Place, wheel
from support.executor import ExecutorProcess, RefusedError
from support.probes import PROBES
from support.service import Service

CODE = """
import atexit, multiprocessing, os, random, sys
generator, constant = random.Random(), random.Random(5)
setting = os.environ.get("ONE_SETTING")
home = os.environ["HOME"]
was_writable = os.access("/dev/shm", os.W_OK) and os.access(home, os.W_OK)
uid = os.geteuid()
atexit.register(lambda: "say" in sys.argv and print("module's end", "json" in sys.modules, __import__("json").dumps(1)))
"""
MORE = """
prepare = "import os; os.makedirs(os.path.expanduser('~/.cache/one')); open(os.environ['CACHE'], 'w').write('filled')"
variables = {CACHE = "{home}/.cache/one/file"}
"""


def made(folder: Path) -> Place:
    """The environment `mine`, built of CODE."""
    place = Place(folder)
    place.define(MORE)
    place.lock(wheel(place.wheels, code=CODE))
    place.build()
    return place


def serving(place: Place, **settings: object) -> ExecutorProcess:
    """An executor for it."""
    return ExecutorProcess(
        environments_dir=place.built, environment_definitions=place.own, preload="mine", **settings
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, _root: None) -> Iterator[ExecutorProcess]:
    with serving(made(tmp_path_factory.mktemp("environments"))) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An environment for tests that rebuild it."""
    return made(tmp_path)


def run(own: ExecutorProcess, program: str, **options: object) -> str:
    return own.run_job(program, "main.py", environment="mine", **options).ok().decode()


def test_what_is_imported_ahead_costs_no_import(own: ExecutorProcess) -> None:
    program = """
import sys
there, opened = "one" in sys.modules, []
sys.addaudithook(lambda event, arguments: opened.append((event, arguments)) if event in ("open", "import", "exec") else None)
import one
print(there, opened, one.uid != 0, one.was_writable, sys.executable, one.__file__)
"""
    site = "/usr/environment/lib/python3"
    said = run(own, program)
    assert said.startswith(f"True [] True True /usr/environment/bin/python3 {site}")
    # Cold, the same program finds the same, only later.
    cold = run(own, program, warm=False)
    assert cold.startswith("False [")
    assert cold.rpartition("] ")[2] == said.rpartition("] ")[2]


def test_every_job_has_its_own_randomness(own: ExecutorProcess) -> None:
    program = """
import one, random, multiprocessing.process as process, uuid
print(one.generator.random(), random.random(), process.current_process().authkey.hex(), uuid.uuid4(), one.constant.random())
"""
    jobs = [run(own, program).split() for _ in range(5)]
    *streams, constants = zip(*jobs, strict=True)
    assert len(set(constants)) == 1
    for stream in streams:
        assert len(set(stream)) == len(jobs)


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_every_language_finds_it(own: ExecutorProcess, warm: bool) -> None:
    program = """
import one, one.rarely, os, subprocess, sys, multiprocessing
print(os.environ["CACHE"], open(os.environ["CACHE"]).read(), one.home, one.rarely.version)
open(os.path.expanduser("~/.cache/one/mine"), "w").close()
print(subprocess.run([sys.executable, "-c", "import one; print(one.home)"], capture_output=True).stdout)
"""
    home = "/home/job"
    expected = f"{home}/.cache/one/file filled {home} 1.0\n"
    assert run(own, program, warm=warm) == expected + f"b'{home}\\n'\n"
    shell = own.run_job(
        "python3 -c 'import one; print(one.home)'", "main.sh", "bash", environment="mine", warm=warm
    )
    assert shell.ok().decode() == home + "\n"


def test_a_variable_that_a_module_has_read_is_read_anew(own: ExecutorProcess) -> None:
    program = "import sys\nthere = 'one' in sys.modules\nimport one\nprint(there, one.setting)"
    assert run(own, program) == "True None\n"
    assert run(own, program, env={"ONE_SETTING": "x"}) == "False x\n"
    assert run(own, program, env={"OTHER": "x"}) == "True None\n"


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_modules_own_end_comes_before_the_interpreters(own: ExecutorProcess, warm: bool) -> None:
    result = own.run_job("import one; print('end')", "main.py", args=["say"], environment="mine", warm=warm)
    assert result.ok() == b"end\nmodule's end False 1\n"
    assert result.stderr == b""


def test_it_holds_a_job_as_default_does(own: ExecutorProcess) -> None:
    # One compares the variables with those of default.
    probes = {name: probe.program for name, probe in PROBES.items() if name != "environment"}
    said = {name: attempt(own, program, environment="mine") for name, program in probes.items()}
    assert {name: word for name, word in said.items() if not word.startswith("CONTAINED")} == {}


def test_nothing_is_shared_by_files(own: ExecutorProcess) -> None:
    """flock on a shared file would reach across jobs, and so would inotify."""
    program = """
import fcntl, one, sys, time
file = open(one.__file__)
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
try:
    open(one.__file__, "a")
except OSError as error:
    print(error.errno, flush=True)
if len(sys.argv) > 1:
    time.sleep(60)
"""
    first = own.start_job(program, "main.py", environment="mine", args=["stay"]).printed(b"30\n")
    assert run(own, program) == "30\n"  # EROFS
    first.hang_up()


def test_a_new_build_is_taken_up_and_running_jobs_stay_on_the_old(place: Place) -> None:
    program = """
import sys, time
for number in range(1000):
    sys.modules.pop("one.rarely", None)
    import one.rarely
    print(f"<{number} {one.rarely.version}>", flush=True)
    time.sleep(0.05)
"""
    ask = "import one.rarely; print(one.rarely.version)"
    old = environments.current(place.built, "mine")
    with serving(place) as own:
        assert run(own, ask) == "1.0\n"
        job = own.start_job(program, "main.py", environment="mine").printed(b"<0 1.0>")
        place.lock(wheel(place.wheels, "2.0", CODE), "2.0")
        new = place.build()
        assert run(own, ask) == "2.0\n"
        seen = job.logs[1].count(b"<")
        job.printed(b"<%d 1.0>" % (seen + 2))
        assert (place.built / "mine" / old).is_dir()
        job.hang_up()
        check_others_cannot_change_it(place.built / "mine" / new)
        # Removing waits until the executor has let go.
        builds.remove("mine", place.built, 30)
        with pytest.raises(RefusedError) as refused:
            run(own, ask)
        assert refused.value.args == ("unsupported", "the environment mine is not built on this worker")
        code = (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"
        )
        place.lock(wheel(place.wheels, "3.0", code), "3.0")
        place.build()
        ask = (
            "import sys\nprint('one' in sys.modules)\nimport one, threading; print(threading.active_count())"
        )
        assert run(own, ask) == "False\n2\n"
        assert "importing started a thread" in own.log.read_text()
        assert own.stop() == 0
    assert str(place.built) not in Path("/proc/self/mountinfo").read_text()
    builds.remove("mine", place.built, 0)
    assert not os.listdir(place.built)


def check_others_cannot_change_it(build: Path) -> None:
    """A build that others than root can change is not used."""
    with ExecutorProcess(environments_dir=build.parent.parent) as other:
        build.chmod(0o777)
        try:
            with pytest.raises(RefusedError, match="can be changed by others"):
                other.run_job("", "main.py", environment="mine")
        finally:
            build.chmod(0o755)


def test_what_a_package_runs_at_every_start_runs_where_the_documents_say(tmp_path: Path) -> None:
    """In the zygote as root and unconfined, in a root without the host's files; in a cold job as the job."""
    seen = "dict(uids=os.getresuid(), secret=os.path.exists('/etc/shadow'), status=open('/proc/self/status').read())"
    place = Place(tmp_path)
    place.define()
    place.lock(
        wheel(place.wheels, code=f"import os; seen = {seen}", hook=f"import os, sys; sys.seen = {seen}\n")
    )
    place.build()
    program = (
        "import one, os, sys\n"
        "for seen in (sys.seen, one.seen, dict(uids=os.getresuid(), status=open('/proc/self/status').read())):\n"
        "    print(*seen['uids'], seen.get('secret'), *seen['status'].partition('Seccomp:')[2].split()[:1])\n"
    )
    with serving(place) as executor:
        hook, module, job = run(executor, program).splitlines()
        assert (hook, module) == ("0 0 0 False 0", "65534 65534 0 False 0")
        cold = run(executor, program, warm=False).splitlines()
    own = "1000 1000 1000"  # the slot's, as its user namespace shows it
    assert job == f"{own} None 2"
    assert cold == [f"{own} False 2"] * 2 + [job]
    with serving(place, import_ahead=False) as executor:
        assert run(executor, program).splitlines() == cold
        assert run(executor, "import sys; print(sys.executable)") == "/usr/environment/bin/python3\n"
        shell = executor.run_job(
            "python3 -c 'import one; print(one.__file__)'", "main", "bash", environment="mine"
        )
        assert shell.ok().startswith(b"/usr/environment/lib/")
        assert executor.run_job("print(1)").ok() == b"1\n"
        (described,) = [item for item in executor.describe().environments if item.name == "mine"]
        assert not described.warm


def test_it_is_described(own: ExecutorProcess) -> None:
    run(own, "")
    found = {item.name: item for item in own.describe().environments}
    assert next(iter(found)) == "default"
    mine = found["mine"]
    assert (mine.built, mine.warm, mine.packages) == (True, True, ("one==1.0",))
    assert mine.headline == ("one==1.0",)
    assert mine.disk_bytes > 0
    assert mine.interpreters == found["default"].interpreters
    assert not found["nlp"].built
    with pytest.raises(RefusedError, match="not built"):
        own.run_job("", "main.py", environment="nlp")
    with pytest.raises(RefusedError, match="no environment"):
        own.run_job("", "main.py", environment="no-such")


def test_over_http_a_new_one_is_there_without_a_restart(place: Place) -> None:
    empty = place.built.with_name("empty")
    with Service(environments_dir=empty, environment_definitions=place.own) as service:

        def refused(name: str) -> str:
            answers = [
                service.client.post(
                    "/run", params={"environment": name}, content="", headers={"Content-Type": "text/plain"}
                ),
                service.client.post(
                    "/submit",
                    files={"files": ("main.py", b"")},
                    data={"manifest": json.dumps({"entrypoint": "main.py", "environment": name})},
                ),
            ]
            assert [answer.status_code for answer in answers] == [400, 400]
            (reason,) = {answer.json()["reason"] for answer in answers}
            return str(reason)

        assert refused("no-such") == "There is no environment 'no-such'; there is: default."
        assert "not built on this worker" in refused("mine")
        place.built.rename(empty)
        job = service.submit("import one; print(one.home)", environment="mine")
        status = service.status(job, wait=30)
        assert status["status"] == "completed"
        assert status["execution_metadata"]["environment"] == "mine"  # type: ignore[index]
        found = service.client.get("/environments").json()
        assert {item["name"]: item["headline"] for item in found["details"]} == {
            "default": [],
            "mine": ["one==1.0"],
        }
        assert found["templates"] == ["default", "mine"]
        assert found["stats"]["total_templates"] == found["stats"]["cached_environments"] == 2
        assert found["stats"]["disk_usage_mb"] >= 0
        assert found["details"][1]["packages"] == ["one==1.0"]
        assert found["details"][1]["warm"]
