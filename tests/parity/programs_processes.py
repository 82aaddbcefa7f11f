"""Threads and processes of programs."""

_MAIN = "if __name__ == '__main__':\n"


def _with_main(before: str, *lines: str) -> str:
    return before + _MAIN + "".join(f"    {line}\n" for line in lines)


PROCESSES: dict[str, str | dict[str, str]] = {
    "thread still running": (
        "import threading, time\n"
        "def f():\n    time.sleep(0.05)\n    print('thread')\n"
        "threading.Thread(target=f).start()\nprint('main')\n"
    ),
    "thread after an exception": (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()\n1 / 0\n"
    ),
    "thread after an exit": (
        "import threading, time, sys\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()\nsys.exit(3)\n"
    ),
    "daemon thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('main')\n",
    "thread fails": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='T')\nt.start()\nt.join()\nprint('main')\n",
    "threads": (
        "import threading\nm = threading.main_thread()\n"
        "print(m.name, threading.current_thread() is m, threading.active_count(), m.ident == threading.get_ident(), m.native_id == __import__('os').getpid())\n"
    ),
    "thread pool": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(3) as p: print(list(p.map(str, range(5))))\n",
    "thread pool left": "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(1)\np.submit(print, 'late')\n",
    "atexit and threads": (
        "import atexit, threading, time\natexit.register(print, 'atexit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()\n"
    ),
    "fork": "import os, sys\npid = os.fork()\nif pid == 0:\n    print('child')\n    sys.exit(4)\nprint('parent', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n",
    "fork and fail": "import os\npid = os.fork()\nif pid == 0:\n    1 / 0\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n",
    "fork and atexit": "import os, atexit\natexit.register(print, 'bye')\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('both', flush=True)\n",
    "fork in a thread": "import os, threading\ndef f():\n    pid = os.fork()\n    if pid == 0: os._exit(5)\n    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\nt = threading.Thread(target=f)\nt.start()\nt.join()\n",
    "spawn": _with_main(
        "import multiprocessing as m\ndef f(x): return x + 1\n",
        "with m.get_context('spawn').Pool(1) as p: print(p.map(f, [1, 2]))",
    ),
    "fork pool": _with_main(
        "import multiprocessing as m\ndef f(x): return x + 1\n",
        "with m.get_context('fork').Pool(2) as p: print(p.map(f, [1, 2]))",
    ),
    "forkserver": _with_main(
        "import multiprocessing as m\ndef f(x): return x + 1\n",
        "with m.get_context('forkserver').Pool(1) as p: print(p.map(f, [1, 2]))",
    ),
    "spawn without guard": "import multiprocessing as m\nm.set_start_method('spawn', force=True)\nprint(__name__)\nif __name__ == '__main__':\n    p = m.Process(target=print, args=('in',))\n    p.start()\n    p.join()\n    print(p.exitcode)\n",
    "spawned fails": _with_main(
        "import multiprocessing as m, os\ndef f(): raise ValueError('x')\n",
        "c = m.get_context('fork')",
        "p = c.Process(target=f, name='P')",
        "p.start()",
        "p.join()",
        "print(p.exitcode)",
    ),
    "start method": "import multiprocessing as m\nprint(m.get_start_method(), m.current_process(), m.parent_process(), m.active_children())\n",
    "queue": _with_main(
        "import multiprocessing as m\ndef f(q): q.put('x')\n",
        "q = m.Queue()",
        "p = m.Process(target=f, args=(q,))",
        "p.start()",
        "print(q.get())",
        "p.join()",
    ),
    "shared memory": _with_main(
        "from multiprocessing import shared_memory\n",
        "s = shared_memory.SharedMemory(create=True, size=10)",
        "s.buf[0] = 5",
        "print(s.buf[0], s.size)",
        "s.close()",
        "s.unlink()",
    ),
    "manager": _with_main(
        "import multiprocessing as m\n",
        "with m.Manager() as g:",
        "    d = g.dict()",
        "    d['a'] = 1",
        "    print(d)",
    ),
    "process pool": _with_main(
        "from concurrent.futures import ProcessPoolExecutor\ndef f(x): return x * 2\n",
        "with ProcessPoolExecutor(2) as p: print(list(p.map(f, range(4))))",
    ),
    "spawned executable": "import multiprocessing.spawn as s, sys\nprint(s.get_executable(), s.get_preparation_data('x')['init_main_from_path'], s.get_preparation_data('x')['sys_argv'])\n",
    "subprocess of itself": "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import sys; print(sys.flags, sys.path, sys.argv)'], capture_output=True, text=True))\n",
    "subprocess module": {
        "main.py": "import subprocess, sys\nprint(subprocess.run([sys.executable, '-m', 'pkg.tool', 'a'], capture_output=True, text=True))\n",
        "pkg/tool.py": "import sys\nprint(sys.argv[1:], __name__)\n",
    },
    "subprocess signals": "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import signal; print([(int(s), signal.getsignal(s)) for s in sorted(signal.valid_signals())])'], capture_output=True, text=True).stdout)\n",
    "subprocess by name": "import subprocess\nprint(subprocess.run(['python3', '-c', 'import sys; print(sys.executable)'], capture_output=True, text=True).stdout)\n",
    "subprocess killed": "import subprocess, sys\ntry:\n    subprocess.run([sys.executable, '-c', 'import os; os.kill(os.getpid(), 15)'], check=True)\nexcept subprocess.CalledProcessError as e: print(e)\n",
    "subprocess not found": "import subprocess\nsubprocess.run(['no-such-program'])\n",
    "subprocess inherits": "import subprocess, sys\nprint('before', flush=True)\nsubprocess.run(['sh', '-c', 'echo out; echo err >&2; exit 3'])\nprint('after')\n",
    "popen still running": "import subprocess\np = subprocess.Popen(['sleep', '0.05'])\nprint('main')\n",
    "shell": "import os\nprint(os.system('exit 3'), os.popen('echo $HOME $0').read())\n",
    "execv": "import os, sys\nprint('before', flush=True)\nos.execv(sys.executable, [sys.executable, '-c', 'import sys; print(sys.argv, sys.orig_argv)', 'x'])\n",
    "execv of itself": "import os, sys\nif len(sys.argv) < 4:\n    os.execv(sys.executable, [sys.executable, *sys.argv, 'again'])\nprint(sys.argv)\nsys.exit(2)\n",
    "execvp": "import os\nos.execvp('sh', ['sh', '-c', 'echo $USER; exit 5'])\n",
    "exec fails": "import os\nos.execv('/nothing', ['x'])\n",
    "asyncio subprocess": (
        "import asyncio\nasync def f():\n    p = await asyncio.create_subprocess_exec('echo', 'hi', stdout=-1)\n"
        "    print(await p.communicate(), p.returncode)\nasyncio.run(f())\n"
    ),
    "child of a signal": "import os, signal\nprint(signal.getsignal(signal.SIGCHLD))\npid = os.fork()\nif pid == 0: os._exit(0)\nprint(os.waitpid(pid, 0)[1])\n",
    "faulthandler": "import faulthandler\nprint(faulthandler.is_enabled())\n",
    "tracemalloc": "import tracemalloc\nprint(tracemalloc.is_tracing())\ntracemalloc.start(25)\nx = [0] * 5000\nprint([(f.filename, f.lineno) for f in tracemalloc.get_object_traceback(x)])\n",
    "pdb": "import pdb\npdb.set_trace()\nx = 1\n",
    "trace module": "import trace\nt = trace.Trace(count=0, trace=1)\nt.run('print(1)')\n",
    "profile": "import cProfile, pstats\np = cProfile.Profile()\np.runcall(len, 'x')\nprint(pstats.Stats(p).total_calls)\n",
    "signal to a process group": "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(os.getpgrp() > 0)\n",
    "sqlite": "import sqlite3\nc = sqlite3.connect('x.db')\nc.execute('create table t (a)')\nc.execute('insert into t values (1)')\nc.commit()\nprint(c.execute('select * from t').fetchall())\n",
    "sockets": "import socket\na, b = socket.socketpair()\na.send(b'x')\nprint(b.recv(1))\ns = socket.create_server(('127.0.0.1', 0))\nc = socket.create_connection(s.getsockname())\nprint(c.getpeername()[0])\n",
}
