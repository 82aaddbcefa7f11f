"""The sandbox is not too strict: what people use works in a job, warm and cold."""

import sys
from pathlib import Path

import pytest

from support.executor import QUICK, ExecutorProcess

PROGRAMS = {
    "threads": """
import threading, queue
results = queue.Queue()
threads = [threading.Thread(target=lambda n=n: results.put(n * n)) for n in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
assert sorted(results.queue) == [n * n for n in range(20)]
""",
    "executors": """
from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor
for kind in ThreadPoolExecutor, ProcessPoolExecutor:
    with kind(2) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]
""",
    "subprocess": """
import subprocess
command = ['sh', '-c', 'cat | tr a-z A-Z; exit 3']
assert subprocess.run(command, input=b'abc', capture_output=True).stdout == b'ABC'
assert subprocess.run('exit 3', shell=True).returncode == 3
""",
    "asyncio": """
import asyncio
async def main():
    async def answer(reader, writer):
        writer.write(await reader.readline()); await writer.drain(); writer.close()
    server = await asyncio.start_server(answer, '127.0.0.1', 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b'echo\\n')
    assert await reader.read() == b'echo\\n'
    writer.close(); server.close()
    process = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1)
    assert (await process.communicate())[0] == b'x\\n'
    assert await asyncio.to_thread(lambda: 5) == 5
asyncio.run(main())
""",
    "sqlite3": """
import sqlite3
for mode in 'delete', 'wal':
    db = sqlite3.connect(f'{mode}.db')
    db.execute(f'pragma journal_mode={mode}')
    db.execute('create table t (x)')
    with db:
        db.executemany('insert into t values (?)', [(n,) for n in range(1000)])
    assert sqlite3.connect(f'{mode}.db').execute('select sum(x) from t').fetchone() == (499500,)
""",
    "tempfile": """
import tempfile, os
with tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile() as f, tempfile.TemporaryFile() as g:
    f.write(b'x'); g.write(b'y')
    assert d.startswith('/tmp/')
os.open('/tmp', os.O_TMPFILE | os.O_RDWR)
""",
    "ssl": """
import ssl, hashlib, secrets, uuid
ssl.create_default_context(); ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
hashlib.scrypt(b'x', salt=b'y', n=2, r=1, p=1); secrets.token_bytes(); uuid.uuid4()
""",
    "dev_fd": """
import os, subprocess
assert subprocess.run(['bash', '-c', 'cat <(echo in) > /dev/fd/1'], capture_output=True).stdout == b'in\\n'
assert os.listdir('/dev/fd')
open('/dev/null', 'w').write('x'); open('/dev/urandom', 'rb').read(8)
open('/dev/stdout', 'w').close()
""",
    "unix_socket": """
import socket, threading
server = socket.socket(socket.AF_UNIX); server.bind('s'); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect('s')
server.accept()[0].send(b'x'); assert client.recv(1) == b'x'
a, b = socket.socketpair(); a.send(b'y'); assert b.recv(1) == b'y'
""",
    "loopback": """
import socket
for family, host in (socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1'):
    server = socket.socket(family); server.bind((host, 0)); server.listen()
    client = socket.create_connection(server.getsockname()[:2])
    server.accept()[0].send(b'x'); assert client.recv(1) == b'x'
assert socket.gethostbyname('localhost') == '127.0.0.1'
assert socket.gethostname() == 'sandrun'
""",
    "locale_and_time": """
import locale, time, zoneinfo, datetime, os, pwd, getpass
locale.setlocale(locale.LC_ALL, '')
assert datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')).utcoffset().seconds == 7200
assert getpass.getuser() == pwd.getpwuid(os.getuid()).pw_name == 'job'
assert os.path.expanduser('~') == '/home/job'
open(os.path.expanduser('~/x'), 'w').write('x')
""",
    "big_reservation": """
import mmap
m = mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
m[0] = m[63 << 30] = 1
""",
    "signals": """
import signal
hits = []
signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.pause()
assert hits
""",
    "fork": """
import os
pid = os.fork()
if pid == 0: os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
assert len(os.sched_getaffinity(0)) >= 1 and os.cpu_count() >= 1
""",
}
MULTIPROCESSING = """
import multiprocessing, sys
from multiprocessing import shared_memory
def square(n): return n * n
def write(name):
    memory = shared_memory.SharedMemory(name); memory.buf[0] = 7; memory.close()
if __name__ == '__main__':
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(4) as pool:
        assert pool.map(square, range(50)) == [n * n for n in range(50)]
    memory = shared_memory.SharedMemory(create=True, size=100)
    child = context.Process(target=write, args=(memory.name,)); child.start(); child.join()
    assert memory.buf[0] == 7, child.exitcode
    memory.close(); memory.unlink()
    q = context.Queue(); child = context.Process(target=q.put, args=('x',)); child.start()
    assert q.get() == 'x'; child.join()
    print('done')
"""


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_library(executor: ExecutorProcess, name: str, warm: bool) -> None:
    result = executor.run_job(PROGRAMS[name] + "\nprint('done')\n", "main.py", warm=warm)
    assert result.ok().endswith(b"done\n")
    assert result.stderr == b""


PACKAGES = """
import importlib.metadata, os, sys
folders = [folder for folder in sys.path if folder.endswith("-packages")]
print([name for folder in folders for name in os.listdir(folder)])
print([found.name for found in importlib.metadata.distributions()])
print([name for name in os.listdir("/usr/lib/python3/dist-packages")])
"""


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_no_package_of_this_machine_is_seen(executor: ExecutorProcess, warm: bool) -> None:
    assert any(Path("/usr/lib/python3/dist-packages").iterdir())  # else this shows nothing
    assert executor.run_job(PACKAGES, "main.py", warm=warm).ok() == b"[]\n" * 3


@pytest.mark.parametrize("path", ["/usr/lib", "/usr/lib/python{}.{}".format(*sys.version_info)])
def test_the_folders_of_the_library_have_the_times_that_the_zygote_saw(
    executor: ExecutorProcess, path: str
) -> None:
    """Else importing would list them again in every job."""
    program = f"import os; print(os.stat({path!r}).st_mtime_ns)"
    assert int(executor.run_job(program, "main.py").ok()) == Path(path).stat().st_mtime_ns


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(executor: ExecutorProcess, method: str, warm: bool) -> None:
    result = executor.run_job(MULTIPROCESSING, "main.py", args=[method], warm=warm, limits=QUICK)
    assert result.ok() == b"done\n"
    assert result.stderr == b""


def test_node_runs_promises_workers_and_children(executor: ExecutorProcess) -> None:
    program = """
const {Worker, isMainThread} = require('worker_threads');
if (isMainThread) {
  const child = require('child_process').execSync('echo child').toString().trim();
  new Worker(__filename).on('exit', code => console.log(child, code, require('os').cpus().length > 0));
}
"""
    assert executor.run_job(program, "main.js", "node").ok() == b"child 0 true\n"


def test_bash_runs_pipes_and_background_jobs(executor: ExecutorProcess) -> None:
    program = "seq 3 | sort -r | paste -sd, ; (echo back) & wait; diff <(echo a) <(echo a) && echo same"
    assert executor.run_job(program, "main.sh", "bash").ok() == b"3,2,1\nback\nsame\n"
