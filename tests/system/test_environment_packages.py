"""Common uses of the shipped environments work in a job, and nothing of a job is in the next.

The environments that are not tested here are by tests/environments/run.py.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from environments import run as environments
from sandrun_admin.builds import BuildError
from sandrun_shared.jobs import Limits
from support import environment_programs as programs
from support.executor import ExecutorProcess

NAMES = ("default", "agent", "ml-basic", "data-science")
JOBS = 200
LIMITS = Limits(wall_seconds=60.0, memory_bytes=512 << 20)


@pytest.fixture(scope="module")
def own(_root: None) -> Iterator[ExecutorProcess]:
    try:
        for name in NAMES:
            environments.build(name, compile_all=False)  # what is not tested need not be compiled
    except BuildError as error:
        if os.environ.get("SANDRUN_SYSTEM_MUST_WORK") == "1":
            raise
        pytest.skip(f"needs the index of packages: {error}")
    with ExecutorProcess(environments_dir=environments.BUILT) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "package"), [(name, package) for name in NAMES for package in programs.PROGRAMS[name]]
)
def test_package(own: ExecutorProcess, name: str, package: str) -> None:
    program = programs.PROGRAMS[name][package]
    result = own.run_job(program, "main.py", environment=name, limits=LIMITS)
    assert result.ok() == b""
    assert result.stderr == b""


def test_every_package_that_is_asked_for_is_used() -> None:
    for name, used in programs.PROGRAMS.items():
        definition = environments.environments.load(environments.environments.definition_files("")[name])
        assert name == "default" or used.keys() == set(definition.packages)


@pytest.mark.parametrize("name", NAMES[1:])
def test_every_module_of_every_distribution(own: ExecutorProcess, name: str) -> None:
    *missing, count = (
        own.run_job(programs.IMPORT_ALL, "main.py", environment=name, limits=LIMITS).ok().split()
    )
    assert missing == []
    assert int(count) >= len(programs.PROGRAMS[name])


def test_pandas_is_there_at_the_start(own: ExecutorProcess) -> None:
    program = """
import sys
there, events = "pandas" in sys.modules, []
sys.addaudithook(lambda event, arguments: events.append(event))
import pandas, numpy, sklearn.linear_model
print(there, events)
"""
    assert own.run_job(program, "main.py", environment="ml-basic").ok() == b"True []\n"


def test_two_hundred_jobs_share_no_stream_and_differ_in_nothing_else(own: ExecutorProcess) -> None:
    def job(_: int) -> list[bytes]:
        return own.run_job(programs.STREAMS, "main.py", environment="ml-basic", limits=LIMITS).ok().split()

    with ThreadPoolExecutor(4) as threads:
        jobs = list(threads.map(job, range(JOBS)))
    different, same = programs.DIFFERENT, {tuple(words[programs.DIFFERENT :]) for words in jobs}
    for stream in zip(*(words[:different] for words in jobs), strict=True):
        assert len(set(stream)) == JOBS
    ((_, thread_count, descriptors),) = same
    assert thread_count == b"1"
    assert descriptors == b"0,1,2,3"  # the last is what lists them


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("cores", [1.0, 2.0])
def test_threads_follow_the_share_of_the_processors(own: ExecutorProcess, cores: float, warm: bool) -> None:
    program = """
import os, sklearn.linear_model, threadpoolctl
names = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
pools = threadpoolctl.threadpool_info()
print(len(pools) >= 2, {pool["num_threads"] for pool in pools} | {int(os.environ[name]) for name in names})
"""
    limits = Limits(wall_seconds=60.0, cpu_cores=cores)
    result = own.run_job(program, "main.py", environment="ml-basic", limits=limits, warm=warm)
    assert result.ok() == b"True {%d}\n" % min(int(cores), os.cpu_count() or 1)
