"""The client alone: its wheel, what it requires, and that it works where nothing of the server is installed."""

import base64
import email
import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import msgspec
import pytest
from nacl.public import PrivateKey
from nacl.signing import SigningKey
from packaging.requirements import Requirement

from sandrun_shared import keys, receipts, sealing
from sandrun_shared.jobs import Limits, Outcome, Verdict
from sandrun_shared.outputs import signed_index, times

ROOT = Path(__file__).parents[2]
SERVER = {"fastapi", "starlette", "uvicorn", "pydantic", "pyseccomp", "websockets"}
OURS = {"sandrun_admin", "sandrun_api", "sandrun_executor", "sandrun_helpers", "sandrun_sandbox"}
FILES = {"results/data.csv": b"a,b\n1,2\n", "plot.txt": b"*"}
WORKER = SigningKey(bytes(range(32)))


def built(folder: Path, project: Path) -> Path:
    """The wheel of a project, made in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"), ROOT / "client")


def required(wheel: Path) -> list[Requirement]:
    """What the wheel requires without extras."""
    with zipfile.ZipFile(wheel) as archive:
        about = next(name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = email.message_from_bytes(archive.read(about))
    found = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return [item for item in found if item.marker is None or item.marker.evaluate({"extra": ""})]


def with_what_they_require(wanted: list[Requirement]) -> dict[str, importlib.metadata.Distribution]:
    """These distributions as they are installed here, and theirs, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    while wanted:
        name = wanted.pop().name.lower()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            more = [Requirement(text) for text in found[name].requires or ()]
            wanted += [item for item in more if item.marker is None or item.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in a virtual environment that holds this wheel, what it requires, and no more."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for distribution in with_what_they_require(required(wheel)).values():
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(distribution.locate_file(file)), packages / file)
    uv = Path(sys.executable).parent / "uv"
    install = [str(uv), "pip", "install", "--offline", "--no-index", "--no-deps", "--no-cache"]
    python = str(folder / "bin" / "python")
    subprocess.run([*install, "--python", python, str(wheel)], check=True, capture_output=True, timeout=60)
    code = f"import importlib.util as u; print([n for n in {sorted(OURS | SERVER)} if u.find_spec(n)])"
    there = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert there.stdout == "[]\n"
    return folder / "bin" / "sandrun"


def run(command: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(command), *map(str, words)], capture_output=True, text=True, check=False, timeout=60, env={}
    )


def test_what_it_holds_and_requires(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    modules = {
        str(path.relative_to(root))
        for root in (ROOT / "api", ROOT / "shared")
        for package in ("sandrun_client", "sandrun_shared")
        for path in (root / package).rglob("*.py")
    }
    typed = {"sandrun_client/py.typed", "sandrun_shared/py.typed"}
    assert {name for name in names if ".dist-info/" not in name} == modules | typed
    names_required = {item.name for item in required(wheel)}
    assert names_required == {"click", "httpx", "msgspec", "pathspec", "pynacl", "watchfiles"}


def test_the_server_brings_what_its_copy_of_the_client_needs() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
    assert set(client["dependencies"]) <= set(whole["dependencies"])
    assert client["scripts"]["sandrun"] == whole["scripts"]["sandrun"]
    assert client["optional-dependencies"] == whole["optional-dependencies"]


def test_files_that_the_server_has_too_are_the_same(wheel: Path, tmp_path: Path) -> None:
    """Of one version, so that it does not matter which of both was installed last."""
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(built(tmp_path, ROOT)) as servers:
        shared = {name for name in ours.namelist() if ".dist-info/" not in name}
        assert shared <= set(servers.namelist())
        assert not [name for name in shared if ours.read(name) != servers.read(name)]


def test_it_works_alone(alone: Path) -> None:
    done = run(alone, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"sandrun \d+\.\d+\.\d+\n", done.stdout)
    for words, lacking in (
        (("mcp",), "in a checkout of Sandrun, pip install './client[mcp]'"),
        (("up",), "`sandrun up` belongs to the server, which is not installed here: in a checkout"),
        (("keygen", "worker.key"), "`sandrun keygen` without `--encryption` belongs to the server"),
    ):
        done = run(alone, *words)
        assert (done.returncode, done.stdout) == (125, "")
        assert lacking in done.stderr


def signed(folder: Path) -> dict[str, str]:
    """Leave a receipt and what it speaks of in a folder; gives the receipt's statement."""
    manifest = {"entrypoint": "main.py", "timeout": 5}
    counted = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    order = b"main.py\0000\0000\0000\0"
    listed = [
        receipts.ListedOutput.of_file(path.encode(), len(data), hashlib.sha256(data).hexdigest(), 0o644)
        for path, data in FILES.items()
    ]
    code = b"print('hi')"
    statement = receipts.statement_of(
        Outcome(Verdict.ok, 0),
        Limits(),
        worker_id=keys.text_of(bytes(WORKER.verify_key)),
        manifest_sha256=hashlib.sha256(counted).hexdigest(),
        upload_sha256=hashlib.sha256(b"main.py\0%012d\0%b" % (len(code), code)).hexdigest(),
        encrypt_to=None,
        order_sha256=hashlib.sha256(order).hexdigest(),
        stdin_sha256=None,
        interpreter="python3",
        environment="default",
        warm=True,
        finished_unix_seconds=1,
        stdout_sha256=hashlib.sha256(b"hi\n").hexdigest(),
        stderr_sha256=hashlib.sha256(b"").hexdigest(),
        outputs_sha256=receipts.index_sha256(listed),
    )
    signature = keys.text_of(receipts.sign(WORKER, statement).signature)
    receipt = msgspec.to_builtins(receipts.Receipt(statement, signature, tuple(listed)))
    (folder / "status.json").write_text(json.dumps({"job_id": "x", "receipt": receipt}))
    (folder / "job.json").write_text(json.dumps({**manifest, "args": None, "warm": True}))
    (folder / "main.py").write_bytes(code)
    (folder / "stdout").write_bytes(b"hi\n")
    for path, data in FILES.items():
        (folder / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "out" / path).write_bytes(data)
    stated: dict[str, str] = receipt["statement"]
    return stated


def test_it_verifies_alone(alone: Path, tmp_path: Path) -> None:
    worker = signed(tmp_path)["worker_id"]
    everything = [
        *(
            "verify",
            "--worker",
            worker,
            "--manifest",
            tmp_path / "job.json",
            "--upload",
            tmp_path / "main.py",
        ),
        *("--stdout", tmp_path / "stdout", tmp_path / "status.json", tmp_path / "out"),
    ]
    done = run(alone, *everything)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    assert all(line.startswith("ok ") for line in lines)
    (tmp_path / "out" / "plot.txt").write_bytes(b"+")
    (tmp_path / "main.py").write_bytes(b"print('ho')")
    done = run(alone, *everything)
    assert done.returncode == 1
    differs = [line for line in done.stdout.splitlines() if line.startswith("DIFFERS")]
    assert ["upload" in differs[0], "plot.txt" in differs[1], len(differs)] == [True, True, 2]
    text = (tmp_path / "status.json").read_text()
    (tmp_path / "status.json").write_text(text.replace('"exit_code": 0', '"exit_code": 3'))
    done = run(alone, "verify", tmp_path / "status.json")
    assert (done.returncode, done.stdout.startswith("DIFFERS")) == (1, True)


def test_it_makes_a_key_and_decrypts_alone(alone: Path, tmp_path: Path) -> None:
    done = run(alone, "keygen", "--encryption", tmp_path / "my.key")
    assert (done.returncode, done.stderr) == (0, "")
    public = base64.b64decode(done.stdout)
    secret = PrivateKey(keys.read(tmp_path / "my.key", keys.KeyKind.encryption))
    assert bytes(secret.public_key) == public
    listed = [(path.encode(), 0o644, len(d), hashlib.sha256(d).hexdigest()) for path, d in FILES.items()]
    index = signed_index(listed) + times([0] * len(FILES))
    data = b"".join(FILES.values())
    sealed = b"".join(sealing.seal_outputs(sealing.public_key(public), index, [data], len(data)))
    (tmp_path / "outputs.sealed").write_bytes(sealed)
    done = run(alone, "decrypt", tmp_path / "my.key", tmp_path / "outputs.sealed", "-o", tmp_path / "new")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: (tmp_path / "new" / path).read_bytes() for path in FILES} == FILES
