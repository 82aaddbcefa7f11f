"""How a job ended in Piston's words: the stage that compiled, if there was one, and the one that ran."""

import signal
from typing import Any

from sandrun_api.adapters.foreign import run_cpu_seconds
from sandrun_api.jobs.logs import STDERR, STDOUT
from sandrun_api.jobs.model import Job
from sandrun_shared.jobs import Outcome, Verdict
from sandrun_shared.languages import BY_NAME

_Ending = tuple[str | None, str | None, int | None]  # status, message, signal
_LATE: _Ending = ("TO", "Time limit exceeded", signal.SIGKILL)
_ENDINGS: dict[Verdict, _Ending] = {
    Verdict.ok: (None, None, None),
    Verdict.wall_time_limit: _LATE,
    Verdict.cpu_time_limit: _LATE,
    Verdict.memory_limit: ("SG", "Memory limit exceeded", signal.SIGKILL),
    Verdict.output_limit: ("OL", "Output limit exceeded", signal.SIGKILL),
    Verdict.compile_error: ("RE", "Compilation failed", None),
}


def stages_of(job: Job, run_seconds: float) -> dict[str, Any]:
    """The stages; run_seconds is what the program may take without its compiler."""
    outcome = job.outcome or Outcome(Verdict.internal_error)
    if not BY_NAME[job.request.interpreter].compiler:
        return {"run": _printed(job, outcome, _ending(outcome))}
    if outcome.verdict is Verdict.compile_error:
        failed = {**_printed(job, outcome, _ending(outcome)), "code": 1}
        return {"compile": failed, "run": failed}  # there too, as nothing ran
    # The job had the compiler's time in addition.
    is_late = outcome.exit_code is not None and outcome.wall_seconds > run_seconds
    stage = _stage(outcome, (None, None, None), outcome.compile_seconds, outcome.compile_cpu_seconds)
    nothing = {"stdout": "", "stderr": "", "output": "", "memory": None, "code": 0}
    return {
        "compile": {**stage, **nothing},
        "run": _printed(job, outcome, _LATE if is_late else _ending(outcome)),
    }


def _printed(job: Job, outcome: Outcome, ending: _Ending) -> dict[str, Any]:
    return {
        **_stage(outcome, ending, outcome.wall_seconds, run_cpu_seconds(outcome)),
        "stdout": job.logs.bytes_of(STDOUT).text,
        "stderr": job.logs.bytes_of(STDERR).text,
        "output": job.logs.bytes_of().text,
    }


def _stage(outcome: Outcome, ending: _Ending, wall_seconds: float, cpu_seconds: float) -> dict[str, Any]:
    status, message, killed_by = ending
    return {
        "code": outcome.exit_code if killed_by is None else None,
        "signal": None if killed_by is None else _signal_name(killed_by),
        "message": message,
        "status": status,
        "memory": outcome.memory_peak_bytes,
        "cpu_time": round(cpu_seconds * 1000),
        "wall_time": round(wall_seconds * 1000),
    }


def _ending(outcome: Outcome) -> _Ending:
    if outcome.verdict in _ENDINGS:
        return _ENDINGS[outcome.verdict]
    if outcome.exit_code is None:
        return "XX", outcome.detail or outcome.verdict.value, None
    if outcome.signal:
        return "SG", f"Caught fatal signal {outcome.signal}", outcome.signal
    return "RE", f"Exited with error status {outcome.exit_code}", None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"
