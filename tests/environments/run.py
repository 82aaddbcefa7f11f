#!/usr/bin/env python3
"""Every package of the shipped environments, imported and used once in a job, warm and cold.

tests/environments/run.py [NAME...]     root; builds in .venv/environments what is not there yet
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from sandrun_admin import builds  # noqa: E402
from sandrun_shared import environments  # noqa: E402
from sandrun_shared.jobs import Limits  # noqa: E402
from support import environment_programs as programs  # noqa: E402
from support.environments import BUILD_UID  # noqa: E402
from support.executor import ExecutorProcess  # noqa: E402

BUILT = ROOT / ".venv" / "environments"
LIMITS = Limits(wall_seconds=300.0, memory_bytes=1 << 30)


def build(name: str, *, compile_all: bool = True) -> str:
    """Build one of the shipped environments unless it is there; its digest, "" for one that needs no build."""
    path = environments.definition_files("/nonexistent")[name]
    definition = environments.load(path)
    if not definition.packages:
        return ""
    return builds.build(name, definition, path, BUILT, say, uid=BUILD_UID, compile_all=compile_all)


def say(text: str) -> None:
    """To the person who waits."""
    print(text, file=sys.stderr, flush=True)


def check(executor: ExecutorProcess, name: str) -> list[str]:
    """Run everything in one environment; what failed."""
    failed = []

    def run(title: str, program: str, *, warm: bool = True) -> str:
        result = executor.run_job(program, "main.py", environment=name, limits=LIMITS, warm=warm)
        ok = result.outcome.verdict == "ok" and not result.stderr
        seconds = result.outcome.wall_seconds
        print(
            f"{'ok    ' if ok else 'FAILED'} {seconds:7.3f} s  {name}: {title}{'' if warm else ', cold'}",
            flush=True,
        )
        if not ok:
            failed.append(f"{name}: {title}: {result.outcome} {result.stderr.decode()[-1500:]}")
        return result.stdout.decode()

    for package, program in programs.PROGRAMS[name].items():
        run(package, program)
        run(package, program, warm=False)
    if name == "default":
        return failed
    said = run("every module of every distribution", programs.IMPORT_ALL).splitlines()
    failed += [f"{name}: cannot import {line}" for line in said[:-1]]
    modules = ", ".join(environments.load(environments.definition_files("/nonexistent")[name]).modules)
    look = programs.GENERATORS.replace("MODULES", modules)
    for warm in (True, False):
        jobs = [set(run("generators", look, warm=warm).splitlines()) for _ in range(2)]
        same = jobs[0] & jobs[1]
        if warm:
            warm_same = same
        else:  # a generator that a module seeds with a constant is the same in every process
            failed += [f"{name}: not reseeded: {line}" for line in warm_same - same]
    return failed


def main(names: list[str]) -> int:
    """Check these environments, or all; the exit status."""
    names = names or list(programs.PROGRAMS)
    for name in names:
        build(name)
    failed = []
    with ExecutorProcess(environments_dir=BUILT) as executor:
        for name in names:
            failed += check(executor, name)
        failed += [line for line in executor.log.read_text().splitlines() if "ahead" in line]
    for text in failed:
        print(text)
    print(f"{len(names)} environments, {len(failed)} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
