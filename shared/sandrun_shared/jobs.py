"""A job as both daemons see it: its limits, its verdict, its outcome."""

import enum

import msgspec


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
    cancelled = "cancelled"
    executor_lost = "executor_lost"
    internal_error = "internal_error"


class UploadKind(enum.StrEnum):
    """How the bytes of the upload's memfd are laid out."""

    bundle = "bundle"  # see orders.encode_bundle
    tar = "tar"
    tar_gz = "tar.gz"
    tar_bz2 = "tar.bz2"
    tar_xz = "tar.xz"
    zip = "zip"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one job may use; every number is enforced by the executor."""

    wall_seconds: float = 300.0
    cpu_seconds: float | None = None
    memory_bytes: int = 512 << 20
    disk_bytes: int = 100 << 20
    inodes: int = 20_000
    processes: int = 128
    open_files: int = 1024
    log_bytes: int = 10 << 20
    cpu_cores: float = 1.0
    output_files: int = 1000


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one execution ended and what it used; a failing program is an outcome, not an error.

    exit_code is 128+n for signal n and None when the program never ran; times are seconds,
    measured by the cgroup (cpu) and the monotonic clock (wall, setup).
    """

    verdict: Verdict
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    setup_seconds: float = 0.0
    memory_peak_bytes: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    logs_truncated: bool = False
    outputs_truncated: bool = False
