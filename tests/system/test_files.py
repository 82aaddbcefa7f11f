"""Uploads are unpacked in the sandbox, and the job's files are returned."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import msgspec
import pytest

from sandrun_shared.jobs import Limits, UploadKind
from support import machine
from support.executor import QUICK, ExecutorProcess

PROGRAM = b"import helper, os; print(helper.X, oct(os.stat('run.sh').st_mode & 0o7777), os.readlink('link'))"


def limits(**changes: object) -> Limits:
    return msgspec.structs.replace(QUICK, **changes)


def tar(mode: str, *extra: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}") as archive:
        for name, data, bits in (
            ("main.py", PROGRAM, 0o644),
            ("helper.py", b"X = 5", 0o600),
            ("run.sh", b"", 0o4755),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), bits
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "helper.py"
        archive.addfile(link)
        for info, data in extra:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(UploadKind.tar, ""), (UploadKind.tar_gz, "gz"), (UploadKind.tar_bz2, "bz2"), (UploadKind.tar_xz, "xz")],
)
def test_a_tar_is_unpacked(executor: ExecutorProcess, kind: UploadKind, mode: str) -> None:
    result = executor.run_job({}, "main.py", archive=(kind, tar(mode)))
    assert result.ok() == b"5 0o755 helper.py\n"
    assert result.outputs == {} or not set(result.outputs) - {"__pycache__/helper.cpython-311.pyc"}


def test_a_zip_is_unpacked(executor: ExecutorProcess) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/main.py", "print(open('folder/data').read())")
        archive.writestr("folder/data", "zipped")
    result = executor.run_job({}, "folder/main.py", archive=(UploadKind.zip, buffer.getvalue()))
    assert result.ok() == b"zipped\n"


def test_every_gzip_member_is_unpacked(executor: ExecutorProcess) -> None:
    """As `pigz -i`, `bgzip` and `cat a.gz b.gz` write them."""
    data = tar("", (member("data.txt"), b"there"))
    cut = data.index(b"data.txt")
    packed = gzip.compress(data[:cut]) + gzip.compress(data[cut:])
    program = tar("", (member("reads.py"), b"print(open('data.txt').read())"))
    end = program.index(b"reads.py")
    packed = gzip.compress(program[end : end + 1024]) + packed
    assert executor.run_job({}, "reads.py", archive=(UploadKind.tar_gz, packed)).ok() == b"there\n"


def test_a_damaged_member_is_told_and_nothing_runs(executor: ExecutorProcess) -> None:
    data = bytearray(tar("", (member("data.txt"), b"lost")))
    data[data.index(b"data.txt") + 150] ^= 1  # of its header's checksum
    result = executor.run_job({}, "main.py", archive=(UploadKind.tar, bytes(data)))
    assert (result.outcome.verdict, result.stdout) == ("setup_error", b"")
    assert b"damaged at byte" in result.stderr
    assert b"after member 'link'" in result.stderr


CALLS = b"./helper.sh"
HELPER = b"#!/bin/sh\necho helped"


def on_fat(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name.replace("_", "."))
            info.create_system = 0
            archive.writestr(info, data)
    return buffer.getvalue()


def test_scripts_can_be_called_where_the_upload_could_not_say_so(executor: ExecutorProcess) -> None:
    bundle = {"main.sh": CALLS, "helper.sh": HELPER}
    assert executor.run_job(bundle, "main.sh", "bash").ok() == b"helped\n"
    large = {"main.sh": CALLS, "between": bytes(70_000), "helper.sh": HELPER + b"\n#" * 40_000}
    assert executor.run_job(large, "main.sh", "bash").ok() == b"helped\n"
    archive = UploadKind.zip, on_fat(main_sh=CALLS, helper_sh=HELPER)
    assert executor.run_job({}, "main.sh", "bash", archive=archive).ok() == b"helped\n"
    said = tar("", (member("main.sh"), CALLS), (member("helper.sh"), HELPER))
    result = executor.run_job({}, "main.sh", "bash", archive=(UploadKind.tar, said))
    assert (result.outcome.exit_code, b"Permission denied" in result.stderr) == (126, True)


HOSTILE = {
    "the root itself": (member("/", tarfile.DIRTYPE), b""),
    "traversal": (member("../tmp/out"), b"x"),
    "absolute": (member("/tmp/out"), b"x"),
    "link that leaves": (member("bad", tarfile.SYMTYPE, "/etc/passwd"), b""),
    "link upwards": (member("bad", tarfile.SYMTYPE, "../../etc/passwd"), b""),
    "hard link that leaves": (member("bad", tarfile.LNKTYPE, "/etc/passwd"), b""),
    "device": (member("bad", tarfile.CHRTYPE), b""),
    "fifo": (member("bad", tarfile.FIFOTYPE), b""),
    "beneath a link": (member("link/x"), b"x"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_runs_nothing(executor: ExecutorProcess, name: str) -> None:
    info, data = HOSTILE[name]
    result = executor.run_job({}, "main.py", archive=(UploadKind.tar_gz, tar("gz", (info, data))))
    assert (result.outcome.verdict, result.outcome.exit_code) == ("setup_error", None)
    assert result.stdout == b""
    assert result.stderr.startswith(b"sandrun: ")


@pytest.mark.parametrize("kind", [kind for kind in UploadKind if kind != UploadKind.bundle])
def test_not_an_archive(executor: ExecutorProcess, kind: UploadKind) -> None:
    result = executor.run_job({}, "main.py", archive=(kind, b"this is no archive" * 100))
    assert result.outcome.verdict == "setup_error"
    assert result.outputs == {}


def test_an_archive_that_grows_beyond_the_disk_limit(executor: ExecutorProcess) -> None:
    bomb = tar("gz", (member("zeros"), bytes(30 << 20)))
    result = executor.run_job(
        {}, "main.py", archive=(UploadKind.tar_gz, bomb), limits=limits(disk_bytes=10 << 20)
    )
    assert result.outcome.verdict == "disk_limit"
    assert result.stdout == b""


OUTPUTS = """
import os
open('changed', 'a').write('+')
open('new.txt', 'w').write('new'); os.makedirs('a/b'); open('a/b/deep.csv', 'w').write('1,2')
open(b'\\xff', 'wb').write(bytes(range(256)))
os.symlink('/etc/passwd', 'stolen'); os.symlink('/etc', 'folder'); os.mkfifo('fifo')
os.link('new.txt', 'linked.txt')
open('empty', 'w')
open('/tmp/elsewhere', 'w').write('x')
"""


def test_outputs_are_what_was_made_or_changed(executor: ExecutorProcess) -> None:
    files = {"main.py": OUTPUTS.encode(), "same": b"same", "changed": b"was"}
    outputs = executor.run_job(files, "main.py").outputs
    assert outputs == {
        "changed": b"was+",
        "new.txt": b"new",
        "linked.txt": b"new",
        "a/b/deep.csv": b"1,2",
        "\udcff": bytes(range(256)),
        "empty": b"",
    }


def test_patterns_choose_outputs(executor: ExecutorProcess) -> None:
    result = executor.run_job(
        {"main.py": OUTPUTS.encode(), "same": b"same"}, "main.py", outputs=["*.txt", "same"]
    )
    assert set(result.outputs) == {"new.txt", "linked.txt", "same"}


def test_outputs_of_a_job_that_failed_are_kept(executor: ExecutorProcess) -> None:
    result = executor.run_job("open('x', 'w').write('kept'); 1/0", "main.py")
    assert result.outcome.verdict == "nonzero_exit"
    assert result.outputs == {"x": b"kept"}


def test_too_many_outputs_are_told(executor: ExecutorProcess) -> None:
    result = executor.run_job("[open(str(n), 'w') for n in range(30)]", limits=limits(output_files=10))
    assert len(result.outputs) == 10
    assert result.outcome.outputs_truncated


def test_a_deep_tree_is_no_trouble(executor: ExecutorProcess) -> None:
    program = "import os\nfor n in range(3000):\n os.mkdir('d'); os.chdir('d')\nopen('leaf', 'w')"
    result = executor.run_job(program)
    result.ok()
    assert result.outcome.outputs_truncated or len(result.outputs) <= 1


LEAVES = """
import os
folder = "/".join(["x" * 200] * 6)
os.makedirs(folder)
open(folder + "/f", "w").close()
for name in (b"\\xff", b"\\\\xff", b"fine"):
    open(name, "w").close()
"""


def test_what_cannot_be_listed_is_left_out_and_the_rest_is_there(executor: ExecutorProcess) -> None:
    result = executor.run_job(LEAVES)
    result.ok()
    assert set(result.outputs) == {"fine", "\\xff"}
    told = {item.reason.value: item.count for item in result.outcome.outputs_left_out}
    assert told == {"path_too_long": 1, "same_name": 1}


def test_permissions_and_times_are_kept(executor: ExecutorProcess) -> None:
    program = (
        "import os\nopen('run.sh', 'w')\nos.chmod('run.sh', 0o4755)\nos.utime('run.sh', (5, 1_600_000_000))"
    )
    (entry,) = executor.run_job(program).entries
    assert (entry.path, entry.mode, entry.modified_unix_seconds) == ("run.sh", 0o755, 1_600_000_000)


def test_collecting_is_paid_for(executor: ExecutorProcess) -> None:
    """The program is the same, and nothing is collected: only how long it takes to find that out differs."""
    program = "for n in range(1000): open(f'{n:04}' + 'a' * 200, 'w').close()"
    patterns = [f"{'**a' * 100}{number}" for number in range(20)]
    plain = executor.run_job(program, outputs=["nothing"]).outcome.cpu_seconds
    costly = executor.run_job(program, outputs=patterns).outcome.cpu_seconds
    assert costly > 2 * plain


def test_a_collection_that_nobody_wants_any_more_ends() -> None:
    """It would take hours; its client has gone."""
    program = "for n in range(15_000): open(f'{n:05}' + 'a' * 240, 'w').close()"
    patterns = [f"{'**a' * 300}{number}" for number in range(30)]
    with ExecutorProcess(without=["collecting_time"], slots=1, parked=0) as patient:
        job = patient.start_job(program, outputs=patterns)
        assert machine.eventually(lambda: any(map(_is_first, machine.of_jobs(patient))))
        before = job.used().cpu_seconds  # it is charged as it goes
        assert job.used().cpu_seconds > before
        job.hang_up()
        assert machine.eventually(lambda: not machine.of_jobs(patient))
        assert patient.run_job("print('next')").ok() == b"next\n"


def _is_first(pid: int) -> bool:
    """Whether it is PID 1 of a sandbox, which has the job's user id only while it collects."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("NSpid:") and line.endswith("\t1") for line in lines)
