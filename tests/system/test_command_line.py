"""The command in a real terminal, and in pipes, against the real service."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from nacl.signing import SigningKey

from sandrun_shared.keys import KeyKind, text_of, write_new
from support.service import Service

COMMAND = [sys.executable, "-P", "-m", "sandrun_client"]
SECONDS = 60
SEED = bytes(range(32))
WORKER = text_of(bytes(SigningKey(SEED).verify_key))
LASTS = "import time\nprint('started', flush=True)\ntime.sleep(600)\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose worker signs."""
    key = tmp_path_factory.mktemp("key") / "worker.key"
    write_new(key, KeyKind.worker, SEED)
    with Service(worker_key=key) as running:
        yield running


def environment(service: Service, **more: str) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "SANDRUN_URL": f"http://127.0.0.1:{service.port}",
        **more,
    }


@pytest.fixture
def piped(service: Service, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs the command without a terminal, in a new folder."""

    def run(*words: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*COMMAND, *words],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            cwd=tmp_path,
            env=environment(service, **more),
        )

    return run


@pytest.fixture
def terminal(service: Service, tmp_path: Path) -> Iterator[Callable[..., "pexpect.spawn[str]"]]:
    """Starts the command in a terminal, in a new folder."""
    started: list[pexpect.spawn[str]] = []

    def start(*words: str, **more: str) -> "pexpect.spawn[str]":
        child = pexpect.spawn(
            COMMAND[0],
            [*COMMAND[1:], *words],
            cwd=str(tmp_path),
            env=environment(service, **more),
            timeout=SECONDS,
            encoding="utf-8",
            dimensions=(24, 100),
        )
        child.delaybeforesend = None
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def ended(child: "pexpect.spawn[str]") -> tuple[str, int | None]:
    """What it printed until its end, and its exit status."""
    child.expect(pexpect.EOF)
    child.wait()
    return child.before or "", child.exitstatus


def no_job_is_left(service: Service) -> bool:
    system = service.client.get("/stats").json()["system"]
    return bool(system["active_jobs"] == 0 and system["queue_length"] == 0)


def test_output_passes_through_untouched(
    piped: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text(
        "import os, sys\nos.write(1, bytes(range(256)))\nos.write(2, b'\\xfferr')\n"
        "print(sys.argv[1:], input())\nsys.exit(42)\n"
    )
    (tmp_path / "input").write_text("typed\n")
    done = piped("a.py", "--stdin", "input", "--", "-x", "--lang")
    assert done.stdout == bytes(range(256)) + b"['-x', '--lang'] typed\n"
    assert done.stderr == b"\xfferr"
    assert done.returncode == 42


def test_code_from_a_pipe(piped: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    assert piped("--lang", "python", stdin=b"print(1)").stdout == b"1\n"
    assert piped("-", stdin=b"#!/bin/sh\necho $0 $1\n").stdout.startswith(b"")
    assert piped("run", "-l", "bash", stdin=b"echo $BASH_VERSION | wc -l").stdout == b"1\n"


def test_exit_statuses(piped: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    late = piped("--timeout", "0.5", stdin=b"while True: pass")
    assert late.returncode == 124
    assert b"timed out after 0.5 s" in late.stderr
    killed = piped(stdin=b"import os; os.kill(os.getpid(), 11)")
    assert killed.returncode == 128 + signal.SIGSEGV
    assert b"SIGSEGV" in killed.stderr
    full = piped("--memory", "64", stdin=b"x = bytearray(200 << 20)")
    assert full.returncode != 0
    assert b"ran out of memory: 64 MB" in full.stderr or b"MemoryError" in full.stderr
    wrong = piped("--env", "LD_PRELOAD=x", stdin=b"")
    assert wrong.returncode == 125
    assert b"LD_PRELOAD" in wrong.stderr


def test_json(piped: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    done = piped("--json", stdin=b"print('a'); open('f', 'w').write('x'); raise SystemExit(3)")
    document = json.loads(done.stdout)
    assert (document["stdout"], document["exit_code"], done.returncode) == ("a\n", 3, 3)
    assert [file["path"] for file in document["files"]] == ["f"]
    job_id = document["job_id"]

    def answer(*words: str) -> Any:
        return json.loads(piped(*words, "--json").stdout)

    assert answer("status", job_id).get("status") == "failed"
    assert answer("logs", job_id).get("stdout") == "a\n"
    assert answer("outputs", job_id)[0]["size_bytes"] == 1
    assert answer("download", job_id, "-o", "d") == {"saved": ["d/f"]}
    gone = piped("status", job_id, "--json")
    assert (gone.returncode, json.loads(gone.stdout)["status"]) == (125, 404)
    assert "templates" in answer("envs")
    assert "your_quota" in answer("stats")


def test_only_what_the_worker_signed_is_accepted(
    piped: Callable[..., subprocess.CompletedProcess[bytes]],
) -> None:
    code = b"import os; os.write(1, b'\\xff'); open('f', 'w').write('x')"
    done = piped("--verify-with", WORKER, "-o", "out", stdin=code)
    assert (done.returncode, done.stdout) == (0, b"\xff"), done.stderr
    other = piped("--verify-with", text_of(bytes(32)), stdin=code)
    assert other.returncode == 125
    assert b"receipt is of the worker" in other.stderr


def test_a_job_step_by_step(piped: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"entrypoint": "x.py", "args": ["hi"]}))
    (folder / "x.py").write_text("import sys; print(sys.argv[1]); open('o.txt', 'w').write('o')")
    job_id = piped("submit", "in").stdout.decode().strip()
    assert b"completed" in piped("status", job_id, "--wait").stdout
    assert piped("logs", "-f", job_id).stdout == b"hi\n"
    assert piped("outputs", job_id).stdout == b"1 B\ttext/plain\to.txt\n"
    assert piped("download", job_id, "o.txt", "-o", "one").stdout == b"one/o.txt\n"
    assert piped("cancel", job_id).returncode == 0
    assert piped("cancel", job_id).returncode == 125


def test_files_are_saved(
    piped: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path, service: Service
) -> None:
    code = b"import os; os.mkdir('d'); open('d/f', 'w').write('x')"
    done = piped("-o", "out", "--lang", "python", stdin=code)
    assert (done.returncode, (tmp_path / "out" / "d" / "f").read_text()) == (0, "x")
    assert b"saved 1 file in out" in done.stderr
    kept = piped("--lang", "python", stdin=code)
    job_id = kept.stderr.split()[-1].decode()
    assert b"left d/f; sandrun download" in kept.stderr
    assert service.status(job_id)["status"] == "completed"


def test_a_reader_that_leaves_cancels(service: Service, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("while True: print('y' * 1000, flush=True)")
    with subprocess.Popen(
        [*COMMAND, "a.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(service),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(SECONDS) == 128 + signal.SIGPIPE
    assert b"Traceback" not in said
    assert no_job_is_left(service)


def test_live_output_in_a_terminal(terminal: Callable[..., "pexpect.spawn[str]"], tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LASTS)
    child = terminal("a.py")
    child.expect("started\r\n")  # while the program still runs
    assert child.isalive()
    child.sendintr()
    said, status = ended(child)
    assert "cancelled" in said
    assert "Traceback" not in said
    assert status == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_stopped_is_cancelled_at_the_server(
    terminal: Callable[..., "pexpect.spawn[str]"], tmp_path: Path, service: Service, number: int
) -> None:
    (tmp_path / "a.py").write_text(LASTS)
    child = terminal("a.py")
    child.expect("started")
    assert not no_job_is_left(service)
    child.kill(number)
    assert ended(child)[1] == 128 + number
    assert no_job_is_left(service)


def test_a_progress_bar_only_for_large_uploads_and_only_in_a_terminal(
    terminal: Callable[..., "pexpect.spawn[str]"],
    piped: Callable[..., subprocess.CompletedProcess[bytes]],
    tmp_path: Path,
) -> None:
    for name, size in (("small", 1000), ("large", 3 << 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.bin").write_bytes(os.urandom(size))
        (tmp_path / name / "main.py").write_text("print('done')")
    said, status = ended(terminal("large"))
    assert "Uploading" in said
    assert "100%" in said
    assert status == 0
    assert "Uploading" not in ended(terminal("small"))[0]
    assert "Uploading" not in ended(terminal("large", "--quiet"))[0]
    done = piped("large")
    assert (done.stdout, done.stderr) == (b"done\n", b"")


def test_colours_only_in_a_terminal_and_only_if_wanted(
    terminal: Callable[..., "pexpect.spawn[str]"], piped: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    assert "\x1b[31m" in ended(terminal("status", "nothing"))[0]
    assert "\x1b" not in ended(terminal("status", "nothing", NO_COLOR="1"))[0]
    assert "\x1b" not in ended(terminal("status", "nothing", TERM="dumb"))[0]
    assert b"\x1b" not in piped("status", "nothing").stderr


def test_watching_runs_again_on_a_change(
    terminal: Callable[..., "pexpect.spawn[str]"], tmp_path: Path, service: Service
) -> None:
    program = tmp_path / "a.py"
    program.write_text("print('fir' + 'st')")
    child = terminal("--watch", "a.py")
    child.expect("first")
    child.expect("waiting for a change")
    replacement = tmp_path / "new"
    replacement.write_text(LASTS)
    replacement.replace(program)  # as editors do
    child.expect_exact("\x1b[H\x1b[2J")
    child.expect("started")
    program.write_text("print('thi' + 'rd')")  # while the second still runs
    child.expect("cancelled")
    child.expect("third")
    child.expect("waiting for a change")
    assert no_job_is_left(service)
    child.sendintr()
    said, status = ended(child)
    assert "Traceback" not in said
    assert status == 130


def test_nothing_to_run_in_a_terminal_is_help(terminal: Callable[..., "pexpect.spawn[str]"]) -> None:
    said, status = ended(terminal())
    assert "Usage: sandrun" in said
    assert status == 0
    said, status = ended(terminal("run"))
    assert "Nothing to run" in said
    assert status == 125


def test_code_of_the_command_line(piped: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    done = piped("-c", "import sys; print(sys.argv[1:], input())", "a", "--", "-b", stdin=b"typed\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"['a', '-b'] typed\n", b"", 0)
    assert piped("run", "-l", "bash", "-c", "echo $((6 * 7))").stdout == b"42\n"


def test_what_is_piped_in_is_the_programs_input(
    piped: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text("import sys; print(len(sys.stdin.read()))")
    assert piped("a.py", stdin=b"x" * 100_000).stdout == b"100000\n"
    (tmp_path / "other").write_text("four")
    assert piped("a.py", "--stdin", "other", stdin=b"x").stdout == b"4\n"
    assert piped("a.py").stdout == b"0\n"


def test_a_file_on_standard_output(
    piped: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path, service: Service
) -> None:
    one = piped("submit", "-c", "open('f', 'wb').write(bytes(range(256)))").stdout.decode().strip()
    piped("status", one, "--wait")
    assert piped("download", one, "f", "-o", "-").stdout == bytes(range(256))
    assert service.status(one)["status"] == "completed"  # as when a single file is saved
    assert piped("download", one, "-o", "-").stdout == bytes(range(256))
    assert piped("status", one).returncode == 125
    two = piped("submit", "-c", "open('a', 'w'); open('b', 'w')").stdout.decode().strip()
    piped("status", two, "--wait")
    done = piped("download", two, "-o", "-")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"it left a, b" in done.stderr
    piped("cancel", two)
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_limits_and_names_in_words(piped: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    for words, told in (
        (("--memory", "1"), b"memory must be between 16 and 2048 MB"),
        (("--memory", "3g"), b"memory must be between 16 and 2048 MB"),
        (("--timeout", "2h"), b"timeout must be above 0 and at most 3600 seconds"),
        (("--lang", "python3.12"), b"Did you mean 'python3'?"),
        (("--environment", "defalt"), b"Did you mean 'default'?"),
    ):
        done = piped("-c", "1", *words)
        assert (done.returncode, done.stdout) == (125, b"")
        assert told in done.stderr, done.stderr
        assert b"Input should be" not in done.stderr
    document = json.loads(piped("-c", "1", "--memory", "1", "--json").stdout)
    assert document["error"] == "Invalid request"
    assert document["errors"][0]["pointer"] == "/memory_mb"
    assert piped("-c", "print(1)", "--memory", "0.5g", "--timeout", "1m").stdout == b"1\n"


def test_output_that_is_cut_is_told(
    piped: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text("print('y' * 99 + '\\n' + 'z' * 12_000_000)")
    done = piped("a.py", "--quiet")
    assert done.returncode == 0
    assert len(done.stdout) == 10 << 20
    assert (
        b"OUTPUT CUT: this is the first 10 MB; the program printed 12 MB, and the rest is lost" in done.stderr
    )
    assert json.loads(piped("a.py", "--json").stdout)["truncated"] is True
    assert json.loads(piped("-c", "1", "--json").stdout)["truncated"] is False


def test_packages_of_a_server_that_installs_none(
    piped: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    """What was asked for is refused; what was only noticed is told and left out."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "main.py").write_text("print('ran')")
    (folder / "requirements.txt").write_text("cowsay\n")
    done = piped("in")
    assert (done.stdout, done.returncode) == (b"ran\n", 0)
    assert b"installing what requirements.txt names" in done.stderr
    assert b"Running without what requirements.txt names." in done.stderr
    done = piped("in", "--no-install")
    assert (done.stdout, done.stderr) == (b"ran\n", b"")
    for words in (("in", "--with", "cowsay"), ("-c", "1", "--with", "cowsay")):
        done = piped(*words)
        assert (done.stdout, done.returncode) == (b"", 125)
        assert b"installs no packages" in done.stderr
    script = b"# /// script\n# dependencies = ['cowsay']\n# ///\nprint('ran')\n"
    assert piped(stdin=script).returncode == 125
    assert piped("--no-install", stdin=script).stdout == b"ran\n"


def test_environments_are_completed(piped: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    done = piped(_SANDRUN_COMPLETE="bash_complete", COMP_WORDS="sandrun run --environment d", COMP_CWORD="3")
    assert done.stdout == b"plain,default\n"


def test_a_wait_for_quota_is_told(tmp_path: Path) -> None:
    """What for and until when, on standard error; and Ctrl-C ends it."""
    variables = {"SANDRUN_QUOTA__CPU_SECONDS_PER_MINUTE": "0.05"}
    with Service(environment=variables) as service:
        burns = "import time\nwhile time.process_time() < 0.2: pass"
        job_id = service.submit(burns)
        service.client.get(f"/status/{job_id}", params={"wait": 60})
        with subprocess.Popen(
            [*COMMAND, "-c", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
            env=environment(service),
        ) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 130
    assert line.startswith(b"sandrun: waiting ")
    assert b" s, at " in line
    assert b"CPU quota exhausted" in line
    assert line.rstrip().endswith(b"Ctrl-C stops")
