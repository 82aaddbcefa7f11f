"""No file of an upload or a job is imported by our code in the sandbox."""

import io
import sys
import tarfile
import zipfile
from collections.abc import Iterator

import pytest

from sandrun_shared.jobs import UploadKind
from support.environments import Place
from support.executor import ExecutorProcess, Result

# An import of one leaves a file in a folder that is collected later.
TRAP = "import os\nos.close(os.open('/work/later/' + __name__, os.O_CREAT | os.O_WRONLY))\n"
# The job's own process ends without the interpreter's clean-up, which may import from /work as bare Python does.
LEAVE = f"""
import os, sys
names = set(sys.stdlib_module_names) | set(sys.builtin_module_names)
names |= {{"sitecustomize", "usercustomize", "late", "sandrun_sandbox", "sandrun_shared"}}
os.mkdir("later")
for folder in ("", "encodings/", "importlib/", "collections/", "ctypes/"):
    if folder:
        os.mkdir(folder)
    for name in (*names, "__init__", "idna", "cp437", "utf_16", "util", "machinery", "abc"):
        with open(folder + name + ".py", "w") as file:
            file.write({TRAP!r})
with open("a-small", "w") as file:
    file.write("small")
with open("b-large", "wb") as file:
    file.truncate(3 << 20)
with open(b"c-\\xff", "w") as file:
    file.write("not text")
os._exit(0)
"""
WANTED = ["a-*", "b-*", "c-*", "later/"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, _root: None) -> Place:
    """The environment `mine`, whose modules import nothing of the library."""
    made = Place(tmp_path_factory.mktemp("environments"))
    made.build()
    return made


def serving(place: Place, *without: str) -> ExecutorProcess:
    return ExecutorProcess(
        without=without,
        environments_dir=place.built,
        environment_definitions=place.own,
        preload="mine",
        parked=1,
    )


@pytest.fixture(scope="module")
def own(place: Place) -> Iterator[ExecutorProcess]:
    with serving(place) as running:
        yield running


def leave(executor: ExecutorProcess, environment: str, *outputs: str) -> Result:
    result = executor.run_job(LEAVE, "main.py", environment=environment, outputs=outputs)
    result.ok()
    return result


@pytest.mark.parametrize("environment", ["default", "mine"])
def test_the_collector_imports_nothing(own: ExecutorProcess, environment: str) -> None:
    result = leave(own, environment, *WANTED)
    assert {path: len(data) for path, data in result.outputs.items()} == {
        "a-small": 5,
        "b-large": 3 << 20,
        "c-\udcff": 8,
    }
    assert not result.outcome.outputs_truncated


@pytest.mark.parametrize("environment", ["default", "mine"])
def test_nor_when_it_collects_what_changed(own: ExecutorProcess, environment: str) -> None:
    result = leave(own, environment)
    assert "a-small" in result.outputs
    assert not [path for path in result.outputs if path.startswith("later/")]


@pytest.mark.parametrize(
    ("without", "ran"), [(("hoisted_imports",), set()), (("hoisted_imports", "imports"), {"late", "decimal"})]
)
def test_an_import_that_comes_late_is_refused(place: Place, without: tuple[str, ...], ran: set[str]) -> None:
    with serving(place, *without) as weakened:
        result = leave(weakened, "mine", *WANTED)
    assert {path.removeprefix("later/") for path in result.outputs if path.startswith("later/")} == ran
    assert "b-large" in result.outputs


LOOK = "import os\nprint(*sorted(os.listdir('later')))"
SHADOWS = sorted({*sys.stdlib_module_names, "late"} - {"main", "os", "sys"})


def archive(kind: UploadKind) -> bytes:
    """An upload whose members have the names of the library's modules; in a zip one name is not UTF-8."""
    members = {
        **{f"{name}.py": TRAP for name in SHADOWS},
        "encodings/cp437.py": TRAP,
        "QQQ": "",
        "main.py": LOOK,
    }
    buffer = io.BytesIO()
    if kind is UploadKind.zip:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.mkdir("later")
            for name, text in members.items():
                packed.writestr(name, text)
        return buffer.getvalue().replace(b"QQQ", b"\x81\x82\x83")
    with tarfile.open(fileobj=buffer, mode="w:" + kind.value[4:]) as packed:
        folder = tarfile.TarInfo("later")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        packed.addfile(folder)
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.mark.parametrize("environment", ["default", "mine"])
@pytest.mark.parametrize("kind", [kind for kind in UploadKind if kind is not UploadKind.bundle])
def test_unpacking_imports_nothing_of_the_archive(
    own: ExecutorProcess, environment: str, kind: UploadKind
) -> None:
    result = own.run_job({}, "main.py", archive=(kind, archive(kind)), environment=environment)
    assert result.ok() == b"\n", result.stdout


@pytest.mark.parametrize("environment", ["default", "mine"])
def test_nor_does_what_starts_the_program(own: ExecutorProcess, environment: str) -> None:
    files = {f"{name}.py": TRAP.encode() for name in SHADOWS} | {"later/keep": b"", "main.py": LOOK.encode()}
    result = own.run_job(files, "main.py", environment=environment, outputs=["later/"])
    assert result.ok() == b"keep\n"


@pytest.mark.parametrize(
    ("without", "ran"), [(("hoisted_imports",), b"\n"), (("hoisted_imports", "unpackers_imports"), b"late\n")]
)
def test_an_import_while_unpacking_is_refused(place: Place, without: tuple[str, ...], ran: bytes) -> None:
    with serving(place, *without) as weakened:
        upload = (UploadKind.zip, archive(UploadKind.zip))
        assert weakened.run_job({}, "main.py", archive=upload, environment="mine").ok() == ran
