"""The limits of Judge0's submissions in terms of ours, and its answer to `GET /config_info`."""

from dataclasses import dataclass
from typing import Any

from sandrun_shared.jobs import MIN_MEMORY_MB
from sandrun_shared.settings import JobLimits, Settings

CPU_SECONDS, WALL_SECONDS = 5.0, 10.0  # Judge0 CE's defaults
COMPILE_SECONDS = 15.0  # for the compiler, in addition
CPU_EXTRA_SECONDS = 1.0
MAX_BATCH = 20


@dataclass(frozen=True)
class Bound:
    """A number that a submission may name: its default, the least, the most."""

    default: float
    least: float
    most: float
    whole: bool = False
    positive: bool = True

    def fault(self, value: float) -> str | None:
        """What is wrong with a value."""
        if self.positive and value <= 0:
            return "must be greater than 0"
        if value < self.least:
            return f"must be greater than or equal to {self.least:.12g}"
        if value > self.most:
            return f"must be less than or equal to {self.most:.12g}"
        return None


def bounds(limits: JobLimits) -> dict[str, Bound]:
    """Every number of a submission that limits it."""
    wall = limits.max_timeout_seconds
    memory_kb = limits.max_memory_mb << 10
    disk_kb = limits.disk_mb << 10
    return {
        "number_of_runs": Bound(1, 1, 1, whole=True),
        "cpu_time_limit": Bound(min(CPU_SECONDS, wall), 0, wall),
        "cpu_extra_time": Bound(CPU_EXTRA_SECONDS, 0, wall, positive=False),
        "wall_time_limit": Bound(min(WALL_SECONDS, wall), 0, wall),
        "memory_limit": Bound(limits.default().memory_bytes >> 10, MIN_MEMORY_MB << 10, memory_kb),
        # The next two are taken and not enforced one by one: the memory and the disk of the job are.
        "stack_limit": Bound(min(64_000, memory_kb), 0, memory_kb, whole=True),
        "max_file_size": Bound(disk_kb, 0, disk_kb, whole=True),
        "max_processes_and_or_threads": Bound(limits.processes, 1, limits.processes, whole=True),
    }


def config_info(settings: Settings) -> dict[str, Any]:
    """What may be asked of this server."""
    table = bounds(settings.limits)
    most = {
        f"max_{name}": int(bound.most) if bound.whole or name == "memory_limit" else bound.most
        for name, bound in table.items()
    }
    defaults = {
        name: int(bound.default) if bound.whole or name == "memory_limit" else bound.default
        for name, bound in table.items()
    }
    return {
        "maintenance_mode": False,
        "enable_wait_result": True,
        "enable_compiler_options": False,
        "allowed_languages_for_compile_options": [],
        "enable_command_line_arguments": True,
        "enable_submission_delete": True,
        "enable_callbacks": False,
        "callbacks_max_tries": 0,
        "callbacks_timeout": 0.0,
        "enable_additional_files": True,
        "max_queue_size": settings.limits.queue_length,
        **defaults,
        **most,
        "enable_per_process_and_thread_time_limit": False,
        "allow_enable_per_process_and_thread_time_limit": False,
        "enable_per_process_and_thread_memory_limit": False,
        "allow_enable_per_process_and_thread_memory_limit": False,
        "redirect_stderr_to_stdout": False,
        "max_extract_size": settings.limits.disk_mb << 10,
        "enable_batched_submissions": True,
        "max_submission_batch_size": MAX_BATCH,
        "enable_network": False,
        "allow_enable_network": False,
        "submission_cache_duration": 0.0,
        "use_docs_as_homepage": False,
    }
