"""Sources are compiled before they run, and uploaded programs run as they are."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import httpx
import msgspec
import pytest

from sandrun_shared.jobs import Limits, UploadKind
from support.executor import PATIENT, QUICK, ExecutorProcess
from support.languages import HELLO, installed
from support.service import Service

SAYS = (
    "#include <stdio.h>\n"
    'int main(int n, char **words) { printf("%s %s\\n", words[0], n > 1 ? words[1] : ""); return 3; }'
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static executable file."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "main.c").write_text(SAYS)
    subprocess.run(["gcc", "-static", "-s", "-o", "main", "main.c"], cwd=folder, check=True)
    return Path(folder, "main").read_bytes()


def test_the_program_sees_nothing_of_its_compilation(executor: ExecutorProcess) -> None:
    files = {"src/main.c": b'#include "more.h"\n' + SAYS.encode(), "src/more.h": b"#define MORE 1\n"}
    result = executor.run_job(files, "src/main.c", "c", args=["one"])
    assert (result.stdout, result.stderr, result.outputs) == (b"/tmp/a.out one\n", b"", {})
    assert (result.outcome.verdict, result.outcome.exit_code) == ("nonzero_exit", 3)
    assert result.outcome.compile_seconds > 0
    assert 0 < result.outcome.compile_cpu_seconds <= result.outcome.cpu_seconds
    script = executor.run_job("exit 3", "main", "sh").outcome
    assert (script.compile_seconds, script.compile_cpu_seconds) == (0, 0)


def test_what_the_compiler_took_is_told_apart(executor: ExecutorProcess) -> None:
    """The program uses half a second of CPU time by its own count; what it begins with may count as the compiler's."""
    busy = (
        "#include <stdio.h>\n#include <time.h>\n"
        'int main(void) { while (clock() < CLOCKS_PER_SEC / 2); printf("%ld", (long)clock()); }'
    )
    result = executor.run_job(busy, "main.c", "c")
    assert int(result.ok()) >= 500_000
    assert 0 < result.outcome.compile_cpu_seconds < result.outcome.cpu_seconds - 0.25


@pytest.mark.parametrize("name", installed({"c", "cpp", "go", "rust"}))
def test_a_compile_error_is_a_verdict_with_the_compilers_words(executor: ExecutorProcess, name: str) -> None:
    program, entrypoint = HELLO[name]
    wrong = program.rstrip().removesuffix("}") + "; zebra(1); }"
    result = executor.run_job(wrong, entrypoint, name, stdin=b"given", limits=PATIENT)
    outcome = result.outcome
    assert (outcome.verdict, outcome.exit_code, outcome.signal) == ("compile_error", None, None)
    assert b"zebra" in result.stderr
    assert result.stdout == b""
    assert result.outputs == {}
    assert outcome.compile_seconds > 0
    assert 0 < outcome.compile_cpu_seconds <= outcome.cpu_seconds
    assert executor.run_job("print('after')").ok() == b"after\n"


@pytest.mark.parametrize(
    ("program", "limits", "verdict"),
    [
        ("#include <bits/stdc++.h>\nint main() {}", Limits(wall_seconds=0.1), "wall_time_limit"),
        ("#include <bits/stdc++.h>\nint main() {}", Limits(cpu_seconds=0.05), "cpu_time_limit"),
        ("#include <bits/stdc++.h>\nint main() {}", Limits(memory_bytes=32 << 20), "memory_limit"),
    ],
)
def test_the_compiler_has_the_jobs_limits(
    executor: ExecutorProcess, program: str, limits: Limits, verdict: str
) -> None:
    result = executor.run_job(program, "main.cpp", "cpp", limits=limits)
    assert (result.outcome.verdict, result.stdout) == (verdict, b"")


def test_a_compiler_without_room_says_so(executor: ExecutorProcess) -> None:
    """It takes away what it wrote, so the disk is not full when it ends."""
    program, limits = "char x[8 << 20] = {1}; int main(void) {}", Limits(disk_bytes=4 << 20)
    result = executor.run_job(program, "main.c", "c", limits=limits)
    assert result.outcome.verdict in ("compile_error", "disk_limit")
    assert b"File size limit" in result.stderr or b"No space left" in result.stderr


def test_a_compiler_cannot_read_more_than_the_job(executor: ExecutorProcess) -> None:
    result = executor.run_job('#include "/etc/shadow"\nint main(void) {}', "main.c", "c")
    assert result.outcome.verdict == "compile_error"
    assert b"No such file" in result.stderr


def test_a_compiler_cannot_open_what_hands_the_job_over(executor: ExecutorProcess) -> None:
    """The job's process, 2, waits for the compiler's, 3, with the channel to the executor open: a socket, which
    has no file to open. The assembler says of each file whether it could open it; of a working folder, it could.
    """
    paths = [f"/proc/{pid}/fd/{fd}" for pid in (2, 3) for fd in range(3, 64)]
    included = "".join(f'".incbin \\"{path}\\"\\n"\n' for path in ["/proc/2/cwd/main.c", *paths])
    result = executor.run_job(f"asm({included});\nint main(void) {{}}", "main.c", "c")
    assert result.outcome.verdict == "compile_error"
    said = [line.rpartition(b"Error: ")[2].decode() for line in result.stderr.splitlines()[1:]]
    assert said == [f"file not found: {path}" for path in paths]


def archive(program: bytes, mode: int) -> tuple[UploadKind, bytes]:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("bin/tool")
        member.size, member.mode = len(program), mode
        tar.addfile(member, io.BytesIO(program))
    return UploadKind.tar, data.getvalue()


@pytest.mark.parametrize("mode", [None, 0o755, 0o644])
def test_an_executable_file_runs(executor: ExecutorProcess, program: bytes, mode: int | None) -> None:
    """As a single file, which carries no mode, and from an archive with and without the right one."""
    options = {} if mode is None else {"archive": archive(program, mode)}
    result = executor.run_job({"bin/tool": program}, "bin/tool", "executable", args=["-x"], **options)
    assert (result.stdout, result.stderr) == (b"./bin/tool -x\n", b"")
    assert (result.outcome.verdict, result.outcome.exit_code) == ("nonzero_exit", 3)
    assert result.outputs == {}


def test_a_broken_executable_file_is_the_jobs_error(executor: ExecutorProcess) -> None:
    limits = msgspec.structs.replace(QUICK, wall_seconds=5.0)
    result = executor.run_job(b"\x7fELF" + bytes(100), "main", "executable", limits=limits)
    assert (result.outcome.verdict, result.outcome.exit_code) == ("nonzero_exit", 126)
    assert result.stderr == b"sandrun: main: Exec format error\n"


def test_the_mode_of_archived_files_reaches_the_program(executor: ExecutorProcess, program: bytes) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, mode, body in (
            ("main.sh", 0o644, b"stat -c %a tool plain; ./tool"),
            ("tool", 0o755, program),
            ("plain", 0o640, b""),
        ):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(body), mode
            tar.addfile(member, io.BytesIO(body))
    result = executor.run_job({}, "main.sh", "sh", archive=(UploadKind.tar, data.getvalue()))
    assert result.stdout == b"755\n640\n./tool \n"


def test_over_http(program: bytes) -> None:
    """The first bytes of an upload tell that it is a program; a compilation is told apart from a run."""
    with (
        Service() as service,
        httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=60) as client,
    ):
        manifest = {"entrypoint": "tool", "args": ["-x"]}
        files = {"files": ("tool", program), "manifest": (None, json.dumps(manifest))}
        job = client.post("/submit", files=files).raise_for_status().json()["job_id"]
        status = client.get(f"/status/{job}", params={"wait": 30}).json()
        assert (status["verdict"], status["exit_code"]) == ("nonzero_exit", 3)
        assert status["execution_metadata"]["interpreter"] == "executable"
        assert client.get(f"/logs/{job}").json()["stdout"] == "./tool -x\n"
        answer = client.post(
            "/run", json={"code": "int main(void) { return zebra; }", "interpreter": "c"}
        ).json()
        assert (answer["status"], answer["verdict"], answer["exit_code"]) == ("failed", "compile_error", None)
        assert "zebra" in answer["stderr"]
        assert answer["metrics"]["compile_seconds"] > 0
