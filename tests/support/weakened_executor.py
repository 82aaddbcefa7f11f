"""The executor with layers switched off: only for tests that show a probe can fail.

It runs in PID and mount namespaces of its own: without the layer "pid" a sandbox's first process
would otherwise end everything on the machine when it ends the job.
"""

import asyncio
import logging
import os
import signal
import sys

from sandrun_executor import linux_unsafe as linux
from sandrun_executor import zygotes
from sandrun_executor.daemon import serve
from sandrun_shared.settings import load

# Layers without a switch: (module of the sandbox, its text, the text without the layer).
PATCHES = {
    "image": ("sandbox.root", '"mime.types", ', '"mime.types", "shadow", '),
    "hide_local": ("sandbox.root", '("local", "src")', '("src",)'),
    "overlay": (
        "sandbox.root",
        'linux.mount("overlay", "/new/usr", "overlay", read_only, "lowerdir=/hide:/usr")',
        'linux.mount("/usr", "/new/usr", "", linux.MS_BIND)',
    ),
    "hidepid": ("sandbox.root", '"hidepid=invisible"', '""'),
    "close_range": ("sandbox.job", "linux.close_range(3)", "os.dup2(0, 77)"),
    "clear_environment": (
        "sandbox.run_python",
        "os.environ.update(program.environment)",
        'os.environ.update(program.environment, SANDRUN_SECRET="leaked")',
    ),
    "nosuid": ("sandbox.root", "_SAFE = linux.MS_NOSUID | linux.MS_NODEV", "_SAFE = linux.MS_NODEV"),
    "read_only": ("sandbox.root", "read_only = _SAFE | linux.MS_RDONLY", "read_only = _SAFE"),
}


def _patch(names: set[str]) -> None:
    sources = zygotes._sources()
    for name in names:
        module, old, new = PATCHES[name]
        found = [text for path, text in sources if path == f"sandrun_executor.{module}"]
        if not found or found[0] is None or old not in found[0]:
            raise SystemExit(f"the layer {name} is no longer where the tests look for it")
        sources = [
            (path, text.replace(old, new) if text and path == f"sandrun_executor.{module}" else text)
            for path, text in sources
        ]
    zygotes._sources = lambda: sources


def _inside(names: set[str]) -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc")
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    _patch(names & PATCHES.keys())
    asyncio.run(serve(load(None), names - PATCHES.keys()))


def main() -> int:
    """Fork into the namespaces, pass SIGTERM on, and end as the child does."""
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        _inside(set(sys.argv[1:]))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
