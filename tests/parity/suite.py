"""Modules of CPython's own test suite, run by a program that tells what came of each test."""

import json
from dataclasses import dataclass

from parity import differences
from parity.bare import BareRoot
from sandrun_shared.jobs import Limits
from support.executor import ExecutorProcess

# Quick ones, for every run of the tests.
QUICK = ("test_atexit", "test_contextlib", "test_copy", "test_dataclasses")
MODULES = (
    *QUICK,
    *"test_abc test_array test_ast test_asyncgen test_baseexception test_builtin test_bytes test_calendar".split(),
    *"test_codecs test_collections test_context test_coroutines test_csv test_ctypes".split(),
    *"test_deque test_dict test_enum test_except_star test_exception_group test_exceptions".split(),
    *"test_faulthandler test_fcntl test_file test_fileio test_fork1 test_frame test_functools test_gc".split(),
    *"test_generators test_glob test_grammar test_hashlib test_import test_importlib test_inspect".split(),
    *"test_itertools test_json test_linecache test_locale test_logging test_mmap".split(),
    *"test_multiprocessing_main_handling test_netrc test_os test_pathlib test_pdb test_pickle".split(),
    *"test_poll test_posix test_pwd test_queue test_random test_re test_resource test_runpy test_select".split(),
    *"test_shutil test_signal test_site test_stat test_struct test_subprocess".split(),
    *"test_support test_sys test_sys_settrace test_sysconfig test_tempfile test_thread test_threading".split(),
    *"test_time test_traceback test_tracemalloc test_typing test_uuid test_warnings test_weakref test_zipfile".split(),
)
SECONDS = 900.0
LIMITS = Limits(
    wall_seconds=SECONDS,
    memory_bytes=2 << 30,
    disk_bytes=1 << 30,
    inodes=50_000,
    processes=500,
    cpu_cores=2.0,
)

# Prints {test: outcome} as one line of JSON; whatever else the tests print goes elsewhere.
PROGRAM = """\
import json, os, sys, unittest
said = os.dup(1)
os.dup2(2, 1)
from test import support
support.use_resources = []
support.verbose = 0

class Told(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.told = {}
    def tell(self, test, outcome):
        name = test.id() if hasattr(test, "id") else str(test)
        if self.told.get(name) not in ("failed", "error"):
            self.told[name] = outcome
    def addSuccess(self, test): self.tell(test, "ok")
    def addFailure(self, test, error): self.tell(test, "failed"); self.why(test, error)
    def addError(self, test, error): self.tell(test, "error"); self.why(test, error)
    def addSkip(self, test, reason): self.tell(test, "skipped")
    def addExpectedFailure(self, test, error): self.tell(test, "expected failure")
    def addUnexpectedSuccess(self, test): self.tell(test, "unexpected success")
    def addSubTest(self, test, part, error):
        if error is not None: self.tell(test, "failed"); self.why(part, error)
    def why(self, test, error):
        import traceback
        sys.__stderr__.write(f"--- {test}\\n{''.join(traceback.format_exception(*error))[-1500:]}\\n")

result = Told()
name = "test." + sys.argv[1]
try:
    tests = unittest.defaultTestLoader.loadTestsFromName(name)
    tests.run(result)
except unittest.SkipTest as reason:
    result.told[name] = "skipped"
with os.fdopen(said, "w") as file:
    json.dump(result.told, file, sort_keys=True)
"""


@dataclass(frozen=True)
class Told:
    """What came of the tests of a module, by their name, and what the failing ones said."""

    outcomes: dict[str, str]
    words: str


def read(stdout: bytes, stderr: bytes, code: int | None) -> Told:
    """What the program printed; for one that did not come to its end, that."""
    words = stderr.decode(errors="replace")
    try:
        return Told(json.loads(stdout.decode().rpartition("\n")[2]), words)
    except ValueError:
        return Told({differences.WHOLE: f"ended with status {code}"}, words)


def compare(outside: Told, inside: dict[str, Told], module: str) -> list[str]:
    """Each way in which the runs inside are other than is listed, as a line of text."""
    faults = []
    for kind, told in inside.items():
        listed = differences.of_module(module, kind)
        names = sorted(outside.outcomes.keys() | told.outcomes.keys())
        found = {
            name: (outside.outcomes.get(name, "absent"), told.outcomes.get(name, "absent"))
            for name in names
            if outside.outcomes.get(name) != told.outcomes.get(name)
        }
        faults += [
            f"{kind}: {name}: {found[name][0]} outside, {found[name][1]} inside"
            for name in found
            if name not in listed
        ]
        faults += [
            f"{kind}: {name}: listed, but no longer different" for name in listed.keys() - found.keys()
        ]
        faults += [
            f"{kind}: {name}: {found[name][1]} inside, listed as {listed[name]}"
            for name in listed.keys() & found.keys()
            if listed[name] != found[name][1]
        ]
    return faults


def run(module: str, executor: ExecutorProcess, bare: BareRoot) -> tuple[Told, dict[str, Told]]:
    """What came of a module outside, and inside by the kind of run."""
    files = {"main.py": PROGRAM.encode()}
    ended = bare.run(files, "main.py", args=[module], seconds=SECONDS)
    inside = {}
    for kind, warm in (("warm", True), ("cold", False)):
        result = executor.run_job(files, "main.py", args=[module], limits=LIMITS, warm=warm)
        inside[kind] = read(result.stdout, result.stderr, result.outcome.exit_code)
    return read(ended.stdout, ended.stderr, ended.code), inside
