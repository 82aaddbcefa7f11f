"""Run a probe as a job and interpret its output."""

from sandrun_shared.jobs import Limits
from support.executor import ExecutorProcess
from support.probes import PRELUDE

LIMITS = Limits(wall_seconds=10.0, memory_bytes=128 << 20)


def attempt(
    executor: ExecutorProcess, program: str, *args: str, warm: bool = True, environment: str = "default"
) -> str:
    """The result of a probe, ESCAPED or CONTAINED, with its evidence."""
    result = executor.run_job(
        PRELUDE + program, "probe.py", args=args, limits=LIMITS, warm=warm, environment=environment
    )
    said = result.stdout.decode().strip()
    assert said.startswith(("ESCAPED", "CONTAINED")), (result.outcome, result.stderr.decode()[-2000:])
    return said
