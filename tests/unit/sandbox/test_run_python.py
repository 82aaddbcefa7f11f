"""A program in an interpreter that already runs behaves as one that `python3 FILE` starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WARM = """
import sys
from sandrun_sandbox.job import Program
from sandrun_sandbox.python.run_python import run
entrypoint, *args = sys.argv[1:]
kept = [sys.modules.pop(name) for name in list(sys.modules) if name.startswith("sandrun")]
run(Program(sys.executable, entrypoint, args, {"GIVEN": "value"}, tuple(sys.modules.keys() - {"sys", "builtins", "__main__"})))
"""
COMPILE = """
import sys
from sandrun_sandbox.python.frames import compiled
open(sys.argv[1], "wb").write(compiled(sys.argv[2]))
"""
# Other CPythons to try, separated by colons.
PYTHONS = [sys.executable, *filter(None, os.environ.get("SANDRUN_OTHER_PYTHONS", "").split(":"))]
REPOSITORY = Path(__file__).parents[3]
LIBRARIES = ":".join(str(REPOSITORY / folder) for folder in ("executor", "shared"))
PROGRAMS = {
    "output": "print('a', flush=True); import sys; print('b', file=sys.stderr)",
    "unflushed": "import sys; sys.stdout.write('no newline')",
    "arguments": "import sys; print(sys.argv, sys.orig_argv)",
    "environment": "import os; print(os.environ['GIVEN'], os.getenv('GIVEN'))",
    "stdin": "import sys; print(sys.stdin.read(), input.__name__)",
    "main": (
        "import sys\n"
        "print(__name__, __file__, __spec__, __package__, __doc__, __annotations__)\n"
        "print(sys.modules['__main__'].__dict__ is globals(), __loader__.__class__.__name__)"
    ),
    "path": "import sys, os; print(sys.path[0] == os.getcwd(), os.path.basename(sys.path[0]) != '')",
    "neighbour": "import neighbour; print(neighbour.VALUE, neighbour.__file__)",
    "exit": "import sys; print('out'); sys.exit(7)",
    "exit none": "import sys; sys.exit(None)",
    "exit text": "import sys; sys.exit('a message')",
    "exit large": "import sys; sys.exit(256 + 5)",
    "exit negative": "import sys; sys.exit(-1)",
    "raise SystemExit": "raise SystemExit",
    "os._exit": "import os; os._exit(9)",
    "exception": "def f():\n    1 / 0\ntry:\n    f()\nexcept Exception as e:\n    raise KeyError('x') from e",
    "syntax": "print('never'\n",
    "declared encoding": b"# coding: latin-1\nprint(ascii('\xe4'))",
    "empty": "",
    "future": "from __future__ import annotations\ndef f(x: nothing): pass\nprint(f.__annotations__)",
    "no future": "def f(x: int): pass\nprint(f.__annotations__)",
    "atexit": "import atexit; atexit.register(print, 'at exit'); print('first'); raise ValueError",
    "hook": "import sys; sys.excepthook = lambda *a: print('hook', a[0].__name__); 1 / 0",
    "last": "import atexit, sys; atexit.register(lambda: print(sys.last_type)); 1 / 0",
    "thread": (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start(); print('main')"
    ),
    "interrupt": "raise KeyboardInterrupt",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "closed stdout": "import sys; sys.stdout.close()",
    "no stdout": "import sys; sys.stdout = None",
    "del": "class A:\n    def __del__(self): print('deleted')\na = A()",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\nprint(A())",
    "pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
    "spawn": (
        "import multiprocessing\n"
        "def f(x): return x + 1\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(f, [1]))"
    ),
    "encodings": "import sys; print(sys.stdout.encoding, sys.stderr.errors, sys.stdin.encoding)",
    "traces": "import sys; print([n for n in sys.modules if n.startswith('sandrun')])",
}


@pytest.fixture(scope="module", params=PYTHONS)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An interpreter, and the program that stands in for its zygote."""
    program = str(tmp_path_factory.mktemp("zygote") / "zygote.pyc")
    environment = {"PYTHONPATH": LIBRARIES, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([request.param, "-c", COMPILE, program, WARM], env=environment, check=True, timeout=60)
    return request.param, program


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_as_the_interpreter(name: str, python: tuple[str, str], tmp_path: Path) -> None:
    text = PROGRAMS[name]
    (tmp_path / "program.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "neighbour.py").write_text("VALUE = 5\n")
    base = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    interpreter, zygote = python
    results = []
    for command, more in (
        (["program.py"], {"GIVEN": "value"}),
        ([zygote, "program.py"], {"PYTHONPATH": LIBRARIES}),
    ):
        done = subprocess.run(
            [interpreter, *command, "one", "two words"],
            input=b"given",
            capture_output=True,
            cwd=tmp_path,
            env=base | more,
            timeout=60,
            check=False,
        )
        stderr = done.stderr.replace(b'File "program.py"', f'File "{tmp_path}/program.py"'.encode())
        results.append((done.returncode, done.stdout, stderr))
    assert results[1] == results[0]
