"""How programs end: exceptions, exits, signals, what runs last."""

HELPER = "def fail():\n    raise LookupError('in a module')\n"
BROKEN = "value = 1\ndef f(:\n    pass\n"

ENDS: dict[str, str | dict[str, str]] = {
    "traceback": "def f(n):\n    if n: f(n - 1)\n    raise ValueError('täst', n)\nf(3)\n",
    "traceback with carets": "data = {'a': [1]}\nprint(data['a'][0]['b']['c'])\n",
    "traceback chained": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n"
        "    try:\n        {}['x']\n    except KeyError:\n        raise RuntimeError('second') from e\n"
    ),
    "traceback in a handler": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    [].pop()\n",
    "traceback from None": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('x') from None\n",
    "exception group": "raise ExceptionGroup('many', [ValueError(1), ExceptionGroup('in', [TypeError(2)])])\n",
    "exception with notes": "e = ValueError('x')\ne.add_note('one')\ne.add_note('two\\nlines')\nraise e\n",
    "exception whose str fails": "class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n",
    "traceback in a module": {"main.py": "import helper\nhelper.fail()\n", "helper.py": HELPER},
    "traceback while importing": {
        "main.py": "import helper\n",
        "helper.py": "x = 1\nraise OSError(2, 'no', 'f')\n",
    },
    "syntax error": "x = 1\nprint('never'\ny = 2\n",
    "indentation error": "if True:\nprint(1)\n",
    "tab error": "if True:\n        x = 1\n\ty = 2\n",
    "syntax error in a module": {"main.py": "print(1)\nimport helper\n", "helper.py": BROKEN},
    "syntax error in exec": "exec('a b')\n",
    "null byte": "x = 1\0\n",
    "not utf-8": {"main.py": "# \udce4\nprint(1)\n"},
    "unknown encoding": "# coding: nothing\nprint(1)\n",
    "module not found": "import nothing_of_that_name\n",
    "suggestion": "import sys\nsys.orgi_argv\n",
    "name suggestion": "value = 1\nprint(valu)\n",
    "recursion error": "def f(n):\n    return f(n + 1)\nf(0)\n",
    "recursion in repr": "l = []\nl.append(l)\nprint(l)\nclass A:\n    def __repr__(self): return repr(self)\nA().__repr__()\n",
    "exit": "import sys\nsys.exit()\n",
    "exit none": "raise SystemExit(None)\n",
    "exit zero": "raise SystemExit(0)\n",
    "exit number": "print('out')\nraise SystemExit(7)\n",
    "exit large": "raise SystemExit(256 + 5)\n",
    "exit huge": "raise SystemExit(1 << 40)\n",
    "exit negative": "raise SystemExit(-1)\n",
    "exit true": "raise SystemExit(True)\n",
    "exit float": "raise SystemExit(1.5)\n",
    "exit text": "raise SystemExit('a message: ä')\n",
    "exit empty text": "raise SystemExit('')\n",
    "exit tuple": "raise SystemExit((1, 2))\n",
    "exit several": "raise SystemExit(1, 2)\n",
    "exit object": "class A:\n    def __str__(self): return 'an object'\nraise SystemExit(A())\n",
    "exit whose str fails": "class A:\n    def __str__(self): 1 / 0\nraise SystemExit(A())\n",
    "exit subclass": "class E(SystemExit): code = 4\nraise E\n",
    "exit code set later": "e = SystemExit(1)\ne.code = 9\nraise e\n",
    "exit builtin": "exit(3)\n",
    "quit builtin": "quit('bye')\n",
    "exit in a function with finally": "import sys\ntry:\n    sys.exit(2)\nfinally:\n    print('finally')\n",
    "exit in a thread": "import sys, threading\nthreading.Thread(target=sys.exit, args=(5,)).start()\nprint('main')\n",
    "os._exit": "import os\nprint('lost')\nos._exit(9)\n",
    "generator exit": "raise GeneratorExit('x')\n",
    "base exception": "class B(BaseException): pass\nraise B('x')\n",
    "keyboard interrupt": "raise KeyboardInterrupt\n",
    "keyboard interrupt by signal": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('never')\n",
    "keyboard interrupt with atexit": "import atexit\natexit.register(print, 'last')\nraise KeyboardInterrupt\n",
    "killed": "import os\nprint('lost')\nos.kill(os.getpid(), 9)\n",
    "aborted": "import os\nos.abort()\n",
    "terminated": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
    "segmentation fault": "import ctypes\nctypes.string_at(0)\n",
    "broken pipe": ("import os, sys\nr, w = os.pipe()\nos.close(r)\nos.dup2(w, 1)\nprint('x' * 100000)\n"),
    "broken pipe at exit": "import os\nr, w = os.pipe()\nos.close(r)\nos.dup2(w, 1)\nprint('x')\n",
    "closed stdout": "import sys\nprint('x')\nsys.stdout.close()\n",
    "closed descriptor": "import os\nprint('x')\nos.close(1)\n",
    "no stdout": "import sys\nsys.stdout = None\nprint('x')\n",
    "no stderr": "import sys\nsys.stderr = None\n1 / 0\n",
    "unflushed": "import sys\nsys.stdout.write('no newline')\nsys.stderr.write('nor here')\n",
    "atexit": (
        "import atexit\natexit.register(print, 'registered first')\n@atexit.register\ndef f(): print('second')\n"
        "print('main')\n"
    ),
    "atexit fails": "import atexit\natexit.register(int, 'x')\natexit.register(print, 'before')\n",
    "atexit exits": "import atexit, sys\natexit.register(sys.exit, 6)\n",
    "atexit registers": "import atexit\natexit.register(lambda: atexit.register(print, 'late'))\n",
    "atexit after an exception": "import atexit\natexit.register(print, 'last')\n1 / 0\n",
    "atexit unregistered": "import atexit\natexit._clear()\nprint(atexit._ncallbacks())\n",
    "atexit exit by os": "import atexit, os\natexit.register(os._exit, 8)\nprint('lost?')\n",
    "destructors": (
        "class A:\n    def __init__(self, n): self.n = n\n    def __del__(self): print('deleted', self.n)\n"
        "a = A(1)\nb = [A(2)]\nb.append(b)\ndef f(): return c\nc = A(3)\n"
    ),
    "destructor fails": "import sys\nsys.unraisablehook = lambda a: print(a.exc_value)\nclass A:\n    def __del__(self): 1 / 0\na = A()\n",
    "destructor in a module": {
        "main.py": "import helper\nprint('end')\n",
        "helper.py": "class A:\n    def __del__(self): print('module', A is None)\na = A()\n",
    },
    "destructor in a module, another one deleted": {
        "main.py": "import helper, sys\ndel sys.modules['stat']\nprint('end')\n",
        "helper.py": "class A:\n    def __del__(self): print('module', A is None)\na = A()\n",
    },
    "destructor in a module before the one that was last": {
        "main.py": "import sys\nname, module = sys.modules.popitem()\nimport helper\nsys.modules[name] = module\nprint('end')\n",
        "helper.py": "class A:\n    def __del__(self): print('module', A is None)\na = A()\n",
    },
    "modules at the end": (
        "import sys, colorsys\nclass A:\n    modules = sys.modules\n    def __del__(self, there=len(sys.modules)):\n"
        "        print(there > 20, self.modules.get('colorsys'), 'os' in self.modules)\nkept = A()\n"
    ),
    "weak references": "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalized')\n",
    "file not closed": "f = open('out.txt', 'w')\nf.write('x')\nimport atexit\natexit.register(lambda: print(open('out.txt').read()))\n",
    "generator not finished": "def g():\n    try:\n        yield 1\n    finally:\n        print('closed')\nx = g()\nnext(x)\n",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__, a[2].tb_lineno)\n1 / 0\n",
    "excepthook fails": "import sys\nsys.excepthook = lambda *a: {}['x']\n1 / 0\n",
    "excepthook exits": "import sys\nsys.excepthook = lambda *a: sys.exit(11)\n1 / 0\n",
    "excepthook gone": "import sys\ndel sys.excepthook\n1 / 0\n",
    "unraisablehook": (
        "import sys\nsys.unraisablehook = lambda a: print('unraisable', a.exc_type.__name__)\n"
        "class A:\n    def __del__(self): 1 / 0\nA()\n"
    ),
    "last exception": "import atexit, sys\natexit.register(lambda: print(sys.last_type, sys.last_traceback.tb_lineno))\n1 / 0\n",
    "async": "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    raise ValueError('x')\nasyncio.run(f())\n",
    "task never retrieved": (
        "import asyncio\nasync def f(): raise ValueError('x')\n"
        "async def main():\n    t = asyncio.create_task(f())\n    await asyncio.sleep(0)\n    await asyncio.sleep(0)\n"
        "try:\n    asyncio.run(main())\nfinally: print('done')\n"
    ),
    "trace function": "import sys\nsys.settrace(lambda *a: None)\ndef f(): 1 / 0\nf()\n",
    "profile function": "import sys\nseen = []\nsys.setprofile(lambda f, e, a: seen.append(e))\nlen('x')\nsys.exit(len(seen))\n",
    "stdout replaced": "import io, sys\nsys.stdout = io.StringIO()\nprint('lost')\n",
    "deleted main": "import sys\ndel sys.modules['__main__']\nprint('still')\n",
    "sys cleared": "import sys\nsys.modules.clear()\nprint('end')\n",
}
