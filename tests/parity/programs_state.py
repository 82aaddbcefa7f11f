"""What programs see of themselves and of the interpreter."""

STATE: dict[str, str | dict[str, str]] = {
    "flags": "import sys\nprint(sys.flags, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode)\n",
    "streams": (
        "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr):\n"
        "    print(s, type(s.buffer), s.mode, s.encoding, s.errors, s.newlines, s.line_buffering, s.write_through)\n"
    ),
    "path": "import sys\nprint(*sys.path, sep='\\n')\nprint(len(sys.path_hooks), len(sys.meta_path))\n",
    "arguments": "import sys\nprint(sys.argv, sys.orig_argv)\n",
    "command line": "print(open('/proc/self/cmdline', 'rb').read())\n",
    "process name": "print(open('/proc/self/comm').read(), open('/proc/self/stat').read().split()[1])\n",
    "executable": "import sys\nprint(sys.executable, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.platlibdir, sys.pycache_prefix)\n",
    "environment": "import os\nprint(sorted(os.environ.items()), os.getenv('HOME'), os.getcwd())\n",
    "environment is the process's": "import os, subprocess\nos.environ['NEW'] = '1'\nprint(subprocess.run(['/usr/bin/env'], capture_output=True, text=True).stdout)\n",
    "first environment": "print(sorted(open('/proc/self/environ', 'rb').read().split(b'\\0')))\n",
    "main": (
        "import sys\nm = sys.modules['__main__']\nprint(sorted(globals()))\n"
        "print(__name__, __file__, __spec__, __package__, __doc__, __annotations__, __cached__, __debug__)\n"
        "print(m.__dict__ is globals(), type(__loader__), __loader__.name, __loader__.path, __builtins__, m)\n"
    ),
    "docstring": "'''What it is.'''\nprint(__doc__)\n",
    "annotations": "x: int = 1\ny: 'later'\nprint(__annotations__)\n",
    "future": "from __future__ import annotations\ndef f(x: nothing): pass\nprint(f.__annotations__)\n",
    "loaded modules": "import sys\nprint(sorted(sys.modules))\n",
    "modules of ours": "import sys\nprint([n for n in sys.modules if 'sandrun' in n])\n",
    "builtins": "print(sorted(dir(__builtins__)))\n",
    "stack": (
        "import inspect, sys, traceback\ntraceback.print_stack(file=sys.stdout)\n"
        "print(sys._getframe().f_back, [f.function for f in inspect.stack()])\n"
        "try:\n    sys._getframe(1)\nexcept ValueError as e: print(e)\n"
    ),
    "stack in a function": "import traceback\ndef f(): traceback.print_stack()\nf()\n",
    "frames of all threads": "import sys\nprint([f.f_code.co_filename for f in sys._current_frames().values()])\n",
    "logging with a stack": "import logging\nlogging.warning('x', stack_info=True, stacklevel=5)\n",
    "recursion limit": "import sys\nprint(sys.getrecursionlimit())\nsys.setrecursionlimit(200)\ndef f(): f()\ntry: f()\nexcept RecursionError as e: print(e)\n",
    "recursion low limit": "import sys\ntry: sys.setrecursionlimit(1)\nexcept RecursionError as e: print('refused')\n",
    "recursion depth": "n = 0\ndef f():\n    global n\n    n += 1\n    f()\ntry: f()\nexcept RecursionError: print(n)\n",
    "warnings": (
        "import warnings\nwarnings.warn('one')\nwarnings.warn('two', DeprecationWarning)\n"
        "warnings.warn('three', stacklevel=2)\nwarnings.warn('four', stacklevel=9)\n"
        "print(warnings.filters)\n"
    ),
    "warning in a module": {
        "main.py": "import helper\nhelper.f()\n",
        "helper.py": "import warnings\ndef f():\n    warnings.warn('x', stacklevel=2)\n    warnings.warn('y', DeprecationWarning)\n",
    },
    "syntax warning": "x = 1\nprint(x is 1)\nassert (x, 'always true')\n",
    "invalid escape": "print('\\d')\n",
    "warnings as errors": "import warnings\nwarnings.simplefilter('error')\nwarnings.warn('x')\n",
    "resource warning": "import warnings\nwarnings.simplefilter('always')\nopen('main.py')\n",
    "source": "import inspect\ndef f(x):\n    return x + 1\nprint(inspect.getsource(f))\nimport sys\nprint(inspect.getsource(sys.modules['__main__'])[:14])\n",
    "source of a class": "import inspect\nclass A:\n    def f(self): pass\nprint(inspect.getsource(A), inspect.getfile(A), inspect.getmodule(A))\n",
    "line cache": "import linecache\nprint(linecache.getline('main.py', 1), linecache.getline(__file__, 2))\n",
    "program removed": "import os\nos.unlink('main.py')\n1 / 0\n",
    "program rewritten": "open('main.py', 'w').write('# other\\n' * 9)\n1 / 0\n",
    "runpy path": {
        "main.py": "import runpy\nprint(runpy.run_path('other.py', run_name='__main__')['x'])\n",
        "other.py": "import sys\nx = __name__, __file__, sys.argv\n",
    },
    "runpy module": {
        "main.py": "import runpy\nrunpy.run_module('pkg', run_name='__main__', alter_sys=True)\n",
        "pkg/__init__.py": "",
        "pkg/__main__.py": "import sys\nprint(__name__, __file__, __package__, sys.argv[0])\nraise KeyError\n",
    },
    "package": {
        "main.py": "from pkg import a\nprint(a.b.__name__, a.__file__)\n",
        "pkg/__init__.py": "",
        "pkg/a.py": "from . import b\n",
        "pkg/b.py": "",
    },
    "relative import in main": "from . import x\n",
    "import of itself": "if __name__ == '__main__':\n    import main\n    print(main.__file__, main is __import__('sys').modules['__main__'])\n",
    "shadowed module": {"main.py": "import json\nprint(json.X)\n", "json.py": "X = 'mine'\n"},
    "shadowed loaded module": {"main.py": "import os, stat\nprint(stat.__file__)\n", "stat.py": "X = 1\n"},
    "import from a zip": "import sys, zipfile\nwith zipfile.ZipFile('/tmp/z.zip', 'w') as z: z.writestr('inzip.py', 'X = 5')\nsys.path.insert(0, '/tmp/z.zip')\nimport inzip\nprint(inzip.X, inzip.__file__)\n",
    "bytecode cache": {
        "main.py": "import helper, os\nprint(helper.__cached__, sorted(os.listdir()))\n",
        "helper.py": "x = 1\n",
    },
    "entrypoint in a folder": {
        "src/main.py": "import sys, helper\nprint(sys.path[0], sys.argv, __file__, helper.__file__)\n",
        "src/helper.py": "",
    },
    "stdio": (
        "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr):\n"
        "    print(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(), s.newlines, s.buffer.raw.mode, s.buffer.raw.closefd)\n"
        "print(sys.stdout is sys.__stdout__, sys.stdout.fileno(), repr(sys.stdout), sys.stdin.buffer.name)\n"
    ),
    "order of streams": "import sys, os\nprint('a')\nprint('b', file=sys.stderr)\nos.write(1, b'c\\n')\nprint('d', flush=True)\n",
    "unencodable": "print('\\udce4')\n",
    "unencodable error": "import sys\nprint('\\udce4', file=sys.stderr)\n",
    "input at the end": "print(repr(__import__('sys').stdin.readline()))\ninput('? ')\n",
    "stdin seek": "import sys\nprint(repr(sys.stdin.read()), sys.stdin.closed)\n",
    "reconfigured": "import sys\nsys.stdout.reconfigure(encoding='latin-1', line_buffering=True)\nprint('ä')\n",
    "no newline translation": "import sys\nsys.stdout.write('a\\r\\nb\\n')\n",
    "large output": "for i in range(20000): print(i, 'x' * 20)\n",
    "encodings": "import sys, locale, os\nprint(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), sys.getdefaultencoding(), locale.getlocale(), locale.getpreferredencoding(), os.fsencode('ä'))\n",
    "signals": (
        "import signal\nfor s in sorted(signal.valid_signals()):\n    print(int(s), signal.getsignal(s))\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getitimer(signal.ITIMER_REAL), signal.set_wakeup_fd(-1))\n"
    ),
    "signals by the kernel": "print(*[l for l in open('/proc/self/status') if l.startswith(('Sig', 'Shd')) and not l.startswith('SigQ')])\n",
    "signal handler": "import os, signal\nsignal.signal(signal.SIGUSR1, lambda n, f: print('got', n, f.f_code.co_name, f.f_back))\nos.kill(os.getpid(), signal.SIGUSR1)\nprint('after')\n",
    "alarm": "import signal\ndef h(n, f): raise TimeoutError('late')\nsignal.signal(signal.SIGALRM, h)\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nsignal.pause()\n",
    "garbage collector": "import gc\nprint(gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks, gc.garbage)\n",
    "frozen objects": "import gc\nprint(gc.get_freeze_count())\n",
    "hooks": "import sys, threading\nprint(sys.displayhook, sys.excepthook is sys.__excepthook__, sys.unraisablehook, sys.gettrace(), sys.getprofile(), sys.breakpointhook is sys.__breakpointhook__, threading.excepthook is threading.__excepthook__, sys.getswitchinterval(), sys.get_asyncgen_hooks())\n",
    "no last exception": "import sys\nprint(hasattr(sys, 'last_type'), sys.exc_info(), hasattr(sys, 'ps1'))\n",
    "identity": "import os\nprint(os.getuid(), os.getgid(), os.getgroups(), os.getlogin.__name__, os.path.expanduser('~'), oct(os.umask(0)), os.nice(0))\n",
    "descriptors": "import os\nprint(sorted(os.listdir('/proc/self/fd'), key=int)[:3], [os.get_inheritable(n) for n in (0, 1, 2)])\nr, w = os.pipe()\nprint(r, w)\n",
    "decimal context": "import decimal\nprint(decimal.getcontext())\n",
    "time zone": "import time\nprint(time.tzname, time.localtime(0), time.timezone)\n",
    "random is random": "import random, os, uuid, secrets\nprint(random.random() != random.random(), len(os.urandom(4)), type(uuid.uuid4()), len(secrets.token_hex(4)))\n",
    "intern": "print(int('9' * 4300) > 0)\nint('9' * 4301)\n",
    "breakpoint": "breakpoint()\nprint('after')\n",
    "compile flags": "print(eval(compile('1 / 2', 'x', 'eval', dont_inherit=False)))\nexec('print(__file__)')\n",
    "pickle": "import pickle\nclass A: pass\nprint(pickle.dumps(A), type(pickle.loads(pickle.dumps(A()))) is A)\n",
    "dataclass and enum": "import dataclasses, enum\n@dataclasses.dataclass\nclass A:\n    x: int = 1\nclass E(enum.Enum):\n    a = 1\nprint(A(), E.a, repr(E.a), A.__module__, E.__module__)\n",
    "globals are kept": "def f(): return globals()['x']\nx = 5\nprint(f())\ndel f\n",
    "doctest": "'''\n>>> 1 + 1\n3\n'''\nimport doctest\nprint(doctest.testmod())\n",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(1, 2)\nunittest.main(argv=['x'], verbosity=0, exit=False, testRunner=unittest.TextTestRunner(stream=open('/dev/null', 'w')))\nprint('end')\n",
    "argparse": "import argparse\np = argparse.ArgumentParser()\np.add_argument('x', type=int)\np.parse_args()\n",
    "asyncio": "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return asyncio.get_running_loop().__class__.__name__\nprint(asyncio.run(f()))\n",
    "tempfile": "import tempfile, os\nprint(tempfile.gettempdir())\nwith tempfile.NamedTemporaryFile() as f: print(os.path.dirname(f.name))\n",
    "own executable": "import os\nprint(os.readlink('/proc/self/exe'))\n",
    "own executable is read": "print(open('/proc/self/exe', 'rb').read(4))\n",
}
