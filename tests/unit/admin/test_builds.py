"""Building environments, from a wheel made here: complete or not there, never in between."""

import fcntl
import os
from pathlib import Path

import pytest

from sandrun_admin import builds, cli
from sandrun_shared import environments
from support import machine
from support.environments import BUILD_UID, Place, wheel

PYTHON = Path(environments.INTERPRETERS["python3"])
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="needs the system's Python")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SANDRUN_EXECUTOR__ENVIRONMENTS_DIR", str(made.built))
    monkeypatch.setenv("SANDRUN_EXECUTOR__ENVIRONMENT_DEFINITIONS", str(made.own))
    return made


def test_a_build_is_complete_and_compiled(place: Place) -> None:
    place.define('prepare = "import os; os.makedirs(os.path.expanduser(\'~/a\')); open(os.environ[\'FILE\'], \'w\')"\n'
                 'variables = {FILE = "{home}/a/file", DATA = "{environment}/data"}')  # fmt: skip
    place.lock(wheel(place.wheels))
    digest = place.build()
    folder = place.built / "mine" / digest
    built = environments.read_built(folder)
    assert environments.current(place.built, "mine") == built.digest == digest
    assert built.packages == ("one==1.0",)
    assert built.links == ("a/", "a/file")
    assert built.variables == {"FILE": "/home/job/a/file", "DATA": "/usr/environment/data"}
    site = next(folder.glob("lib/python3*/site-packages"))
    sources = {path.stem for path in (site / "one").glob("*.py")}
    compiled = {path.name.split(".")[0] for path in (site / "one" / "__pycache__").iterdir()}
    assert sources == compiled == {"__init__", "rarely"}
    assert all(path.stat().st_mode & 0o004 for path in folder.rglob("*") if not path.is_symlink())


def test_what_is_built_is_not_built_again(place: Place) -> None:
    digest = place.build()
    record = place.built / "mine" / digest / environments.RECORD
    before = record.stat().st_ino
    assert place.build() == digest
    assert record.stat().st_ino == before


def test_a_new_lock_replaces_the_build_and_a_used_one_stays(place: Place) -> None:
    old = place.build()
    with (place.built / "mine" / old / environments.RECORD).open("rb") as record:
        fcntl.flock(record, fcntl.LOCK_SH)  # as an executor with a running job
        place.lock(wheel(place.wheels, "2.0"), "2.0")
        new = place.build()
        assert environments.current(place.built, "mine") == new != old
        assert set(place.folders()) == {"current", old, new}
        with pytest.raises(builds.BuildError, match=f"{old} of mine is in use"):
            builds.remove("mine", place.built, 0)
        assert environments.current(place.built, "mine") == ""
    place.build()
    assert place.folders() == sorted(["current", new])


def test_an_interrupted_build_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builds, "_prepare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            place.build()
    partial = next((place.built / "mine").glob("*" + builds.PARTIAL))
    assert environments.current(place.built, "mine") == ""
    (partial / "left.pth").touch()
    digest = place.build()
    assert place.folders() == sorted(["current", digest])
    assert not (place.built / "mine" / digest / "left.pth").exists()


def test_a_wheel_with_another_hash_is_refused(place: Place) -> None:
    place.lock("0" * 64)
    with pytest.raises(builds.BuildError, match="uv could not do it"):
        place.build()
    assert environments.current(place.built, "mine") == ""


def test_a_module_that_cannot_be_imported_fails_the_build(place: Place) -> None:
    place.lock(wheel(place.wheels, code="raise ValueError('not here')"))
    with pytest.raises(builds.BuildError, match="not here"):
        place.build()
    assert environments.current(place.built, "mine") == ""


def test_too_many_files_at_home_fail_the_build(place: Place) -> None:
    place.define("prepare = \"for n in range(100): open(f'{n}', 'w')\"")
    place.lock(wheel(place.wheels))
    with pytest.raises(builds.BuildError, match="100 files"):
        place.build()


_WHO = """
import os, site
from pathlib import Path
seen = Path(os.environ["HOME"]) / "seen"
who = {line.split(":")[0]: line.split(":")[1].strip() for line in open("/proc/self/status")}
others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) > 50]
top = os.path.dirname(os.environ["HOME"])
others += [path for path in (top, f"{top}/bin", f"{top}/pyvenv.cfg", "/etc") if os.access(path, os.W_OK)]
with seen.open("a") as file:
    print(os.getresuid(), os.getresgid(), os.getgroups(), who["CapBnd"], who["NoNewPrivs"], others, file=file)
if os.fork() == 0:
    os.setsid()
    while True:
        os.utime(seen)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_no_code_of_a_package_is_root(place: Place) -> None:
    place.lock(wheel(place.wheels, code=_WHO, start=f"import os; exec({_WHO!r})"))
    folder = place.built / "mine" / place.build()
    uid = str((BUILD_UID,) * 3)
    assert set((folder / "home" / "seen").read_text().splitlines()) == {f"{uid} {uid} [] {0:016x} 1 []"}
    assert BUILD_UID not in {process.uid for process in machine.processes().values()}
    assert {path.lstat().st_uid for path in (folder, *folder.rglob("*"))} == {0}


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["env", *words])
    return int(left.value.code or 0)


def test_the_command(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 0
    assert "mine            not built" in capsys.readouterr().out
    assert command("build", "mine") == 0
    digest = environments.current(place.built, "mine")
    assert f"{digest} is ready" in capsys.readouterr().err
    assert command("list") == 0
    assert f"mine            built                   {digest}" in capsys.readouterr().out
    place.lock(wheel(place.wheels, "2.0"), "2.0")
    assert command("list") == 0
    assert "mine            stale" in capsys.readouterr().out
    assert command("remove", "--all") == 0
    assert not any(path.is_dir() for path in place.built.iterdir())
    assert command("remove", "mine") == 125
    assert "mine is not built" in capsys.readouterr().err
    assert command("build", "default", "no-such") == 125
    said = capsys.readouterr().err
    assert "nothing to build" in said
    assert "there is no such environment" in said
