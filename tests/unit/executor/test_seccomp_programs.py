"""Interpreters and what programs commonly use, under the system call filter alone."""

import os
import select
import subprocess
from pathlib import Path

import pytest

from sandrun_executor import linux_unsafe, seccomp

SECONDS = 60.0
PYTHON_PROGRAM = r"""
import concurrent.futures, multiprocessing, socket, sqlite3, subprocess, tempfile

def square(x):
    return x * x

def main():
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(square, range(4)) == [0, 1, 4, 9]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(square, range(8))) == 140
    with tempfile.TemporaryDirectory() as folder:
        base = sqlite3.connect(folder + "/x.db")
        base.execute("pragma journal_mode=wal")
        base.execute("create table t (x)")
        base.executemany("insert into t values (?)", [(1,), (2,)])
        base.commit()
        assert base.execute("select sum(x) from t").fetchone() == (3,)
        base.close()
    left, right = socket.socketpair()
    left.send(b"x")
    assert right.recv(1) == b"x"
    server = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(server.getsockname()).close()
    assert subprocess.run(["/bin/echo", "child"], capture_output=True, check=True).stdout == b"child\n"
    print("done")

if __name__ == "__main__":
    main()
"""
BASH_PROGRAM = (
    "for i in 1 2 3; do echo $i | cat & done; wait; x=$(ls / | wc -l); [ $x -gt 3 ];"
    " diff <(echo a) <(echo a) && sort <<< done"
)
PERL_PROGRAM = (
    "my $pid = fork; exit 0 if !$pid; waitpid $pid, 0; die if $?;"
    ' open my $f, "-|", "echo", "done" or die; print <$f>;'
)
NODE_PROGRAM = (
    "const {Worker} = require('worker_threads');"
    "const w = new Worker(\"require('worker_threads').parentPort.postMessage(6 * 7)\", {eval: true});"
    "w.on('message', m => { if (m !== 42) process.exit(1);"
    " process.stdout.write(require('child_process').execFileSync('/bin/echo', ['done'])); });"
)
PROGRAMS = {
    "python3": (["-I"], PYTHON_PROGRAM, "program.py"),
    "bash": ([], BASH_PROGRAM, "program.sh"),
    "perl": ([], PERL_PROGRAM, "program.pl"),
    "node": ([], NODE_PROGRAM, "program.js"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_interpreter_works(name: str, tmp_path: Path) -> None:
    path = f"/usr/bin/{name}"
    if not os.access(path, os.X_OK):
        pytest.skip(f"no {path}")
    options, text, file_name = PROGRAMS[name]
    file = tmp_path / file_name
    file.write_text(text)
    code = seccomp.compile_filter()

    def confine() -> None:
        linux_unsafe.prctl(linux_unsafe.PR_SET_NO_NEW_PRIVS, 1)
        linux_unsafe.SeccompProgram(code).install()

    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [path, *options, str(file)],
            preexec_fn=confine,  # noqa: PLW1509 (no threads here)
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
    pidfd = os.pidfd_open(process.pid)
    try:
        ended = select.select([pidfd], [], [], SECONDS)[0]
    finally:
        os.close(pidfd)
        if process.poll() is None:
            process.kill()
        process.wait()
    printed = (tmp_path / "out").read_text()
    assert ended, printed
    assert (process.returncode, printed.splitlines()[-1:]) == (0, ["done"]), printed
