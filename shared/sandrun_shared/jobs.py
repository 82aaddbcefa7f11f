"""Jobs in both daemons: limits, verdict, outcome."""

import enum
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

MAX_SECONDS = 7 * 86400.0
MAX_CPU_SECONDS = 1e9
MIN_MEMORY_MB, MAX_MB = 16, 1 << 20
MIN_INODES, MIN_OPEN_FILES, MAX_COUNT = 100, 16, 1 << 20
MIN_CORES, MAX_CORES = 0.01, 1024.0  # the kernel's minimum is 1 ms of each 100 ms


class Verdict(enum.StrEnum):
    """Why a job ended as it did."""

    ok = "ok"
    nonzero_exit = "nonzero_exit"
    signaled = "signaled"
    wall_time_limit = "wall_time_limit"
    cpu_time_limit = "cpu_time_limit"
    memory_limit = "memory_limit"
    output_limit = "output_limit"
    disk_limit = "disk_limit"
    setup_error = "setup_error"
    compile_error = "compile_error"
    cancelled = "cancelled"
    executor_lost = "executor_lost"
    internal_error = "internal_error"


class UploadKind(enum.StrEnum):
    """Formats of the upload's memfd."""

    bundle = "bundle"  # see orders.encode_bundle
    tar = "tar"
    tar_gz = "tar.gz"
    tar_bz2 = "tar.bz2"
    tar_xz = "tar.xz"
    zip = "zip"


class Installer(enum.StrEnum):
    """What installs the packages that a job requires."""

    uv = "uv"  # requirements.txt, for Python
    npm = "npm"  # package.json, for Node
    bundler = "bundler"  # Gemfile, for Ruby


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one job; the executor enforces each.

    A number out of bounds is a malformed request; below them not even an empty program starts.
    """

    wall_seconds: Annotated[float, Meta(gt=0, le=MAX_SECONDS)] = 300.0
    cpu_seconds: Annotated[float, Meta(gt=0, le=MAX_CPU_SECONDS)] | None = None
    memory_bytes: Annotated[int, Meta(ge=MIN_MEMORY_MB << 20, le=MAX_MB << 20)] = 512 << 20
    disk_bytes: Annotated[int, Meta(ge=1 << 20, le=MAX_MB << 20)] = 100 << 20
    inodes: Annotated[int, Meta(ge=MIN_INODES, le=MAX_COUNT)] = 20_000
    processes: Annotated[int, Meta(ge=1, le=MAX_COUNT)] = 128
    open_files: Annotated[int, Meta(ge=MIN_OPEN_FILES, le=MAX_COUNT)] = 1024
    log_bytes: Annotated[int, Meta(ge=0, le=MAX_MB << 20)] = 10 << 20
    cpu_cores: Annotated[float, Meta(ge=MIN_CORES, le=MAX_CORES)] = 1.0
    output_files: Annotated[int, Meta(ge=0, le=MAX_COUNT)] = 1000


class LimitForm(NamedTuple):
    """One limit, with its names in `Limits`, in a receipt and in a job's status.

    A receipt states it as a whole number, multiplied by `stated_parts`; a status shows it divided by
    `shown_unit`.
    """

    name: str
    stated: str
    shown: str
    stated_parts: int = 1
    shown_unit: int = 1


LIMIT_FORMS = (
    LimitForm("wall_seconds", "wall_microseconds", "timeout", stated_parts=10**6),
    LimitForm("cpu_seconds", "cpu_microseconds", "cpu_seconds", stated_parts=10**6),
    LimitForm("memory_bytes", "memory_bytes", "memory_mb", shown_unit=1 << 20),
    LimitForm("disk_bytes", "disk_bytes", "disk_mb", shown_unit=1 << 20),
    LimitForm("inodes", "inodes", "inodes"),
    LimitForm("processes", "processes", "processes"),
    LimitForm("open_files", "open_files", "open_files"),
    LimitForm("log_bytes", "log_bytes", "log_mb", shown_unit=1 << 20),
    LimitForm("cpu_cores", "cpu_millicores", "cpu_cores", stated_parts=1000),
    LimitForm("output_files", "output_files", "output_files"),
)


def stated(limits: Limits) -> dict[str, int | None]:
    """Convert limits to the whole numbers that receipts state."""
    values = {form.stated: (getattr(limits, form.name), form.stated_parts) for form in LIMIT_FORMS}
    return {name: None if value is None else round(value * parts) for name, (value, parts) in values.items()}


def shown(limits: Limits) -> dict[str, float | None]:
    """Convert limits to what a job's status shows."""
    values = {form.shown: (getattr(limits, form.name), form.shown_unit) for form in LIMIT_FORMS}
    return {name: value if unit == 1 else value // unit for name, (value, unit) in values.items()}


class LeftOutReason(enum.StrEnum):
    """Why files that a job left are not among its outputs."""

    path_too_long = "path_too_long"
    too_deep = "too_deep"
    same_name = "same_name"  # two names that are not UTF-8 would get the same address
    unreadable = "unreadable"
    too_large = "too_large"  # all outputs together may be as large as the disk limit
    too_many_files = "too_many_files"
    too_many_entries = "too_many_entries"
    no_memory = "no_memory"
    out_of_time = "out_of_time"
    not_collected = "not_collected"  # the collector was killed or failed, so there are no outputs


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files missing from the outputs: the reason and their known number; a folder counts as one."""

    reason: LeftOutReason
    count: Annotated[int, Meta(ge=1)] = 1


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The end of one execution and what it used; a failing program is an outcome, not an error.

    exit_code is 128+n for signal n and None when the program never ran; times are seconds,
    measured by the cgroup (cpu) and the monotonic clock (wall, setup, compile; none within another).
    setup_cpu_seconds is the CPU time of installing packages, not part of cpu_seconds; compile_cpu_seconds is
    the compiler's part of cpu_seconds; cpu_seconds includes collecting the outputs. outputs_left_out says why
    outputs are truncated.
    """

    verdict: Verdict
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    setup_seconds: float = 0.0
    compile_seconds: float = 0.0
    setup_cpu_seconds: float = 0.0
    compile_cpu_seconds: float = 0.0
    memory_peak_bytes: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    logs_truncated: bool = False
    outputs_truncated: bool = False
    outputs_left_out: tuple[LeftOut, ...] = ()
