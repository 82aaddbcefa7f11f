"""What answers look like, for the OpenAPI document; a test holds each against its schema."""

from pydantic.config import JsonDict

from sandrun_shared import jobs

_HASH = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
_METRICS: JsonDict = {
    "cpu_seconds": 0.031,
    "memory_mb": 9.0,
    "runtime": 0.042,
    "queued_seconds": 0.001,
    "setup_seconds": 0.003,
    "compile_seconds": 0.0,
    "setup_cpu_seconds": 0.0,
    "compile_cpu_seconds": 0.0,
}
_NONE_MISSING: JsonDict = {"stdout": 0, "stderr": 0}
_OUTPUT: JsonDict = {
    "path": "results/data.csv",
    "size_bytes": 8,
    "sha256": _HASH,
    "mime_type": "text/csv",
    "mode": "644",
    "modified_unix_seconds": 1767268799,
    "download_url": "/download/Zk3v0gk1QbmQ5rW8xJ2c9w/results/data.csv",
}
ERROR_BODY: JsonDict = {
    "error": "Invalid request",
    "reason": "The manifest is not valid: field 'entrypoint' is required",
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "The manifest is not valid: field 'entrypoint' is required",
    "errors": [{"pointer": "/entrypoint", "detail": "field 'entrypoint' is required"}],
}
SUBMITTED: JsonDict = {
    "job_id": "Zk3v0gk1QbmQ5rW8xJ2c9w",
    "status": "queued",
    "queue_position": 0,
    "notes": [],
}
JOB_STATUS: JsonDict = {
    "job_id": "Zk3v0gk1QbmQ5rW8xJ2c9w",
    "status": "completed",
    "queue_position": None,
    "verdict": "ok",
    "exit_code": 0,
    "signal": None,
    "detail": None,
    "truncated": False,
    "missing_bytes": _NONE_MISSING,
    "hints": [],
    "metrics": _METRICS,
    "limits": {**jobs.shown(jobs.Limits())},
    "execution_metadata": {
        "cpu_seconds": 0.031,
        "memory_peak_bytes": 9437184,
        "exit_code": 0,
        "environment": "default",
        "interpreter": "python3",
    },
    "job_hash": _HASH,
    "output_files": {
        "results/data.csv": {
            "path": "results/data.csv",
            "size_bytes": 8,
            "sha256_hash": _HASH,
            "type": "file",
        }
    },
    "left_out": [],
    "encrypt_to": None,
    "worker_metadata": {"worker_id": "", "signature": None},
    "receipt": None,
    "expires_at": "2026-01-01T12:00:00+00:00",
}
LOGS: JsonDict = {
    "stdout": "hi\n",
    "stderr": "",
    "encoding": "utf-8",
    "stdout_bytes": 3,
    "stderr_bytes": 0,
    "truncated": False,
    "missing_bytes": _NONE_MISSING,
    "next_offset": 3,
}
OUTPUT_LIST: JsonDict = {
    "files": ["results/data.csv"],
    "details": [_OUTPUT],
    "truncated": True,
    "left_out": [{"reason": "path_too_long", "count": 1}],
}
RUN_RESULT: JsonDict = {
    "job_id": "Zk3v0gk1QbmQ5rW8xJ2c9w",
    "status": "completed",
    "verdict": "ok",
    "exit_code": 0,
    "signal": None,
    "detail": None,
    "output": "1\n",
    "stdout": "1\n",
    "stderr": "",
    "truncated": False,
    "missing_bytes": _NONE_MISSING,
    "hints": [],
    "metrics": _METRICS,
    "files": [_OUTPUT],
    "left_out": [],
    "images": [],
    "images_left_out": 0,
    "receipt": None,
    "expires_at": "2026-01-01T12:00:00+00:00",
}
HEALTH: JsonDict = {"status": "healthy", "worker_id": ""}
SERVER_INFO: JsonDict = {
    "service": "sandrun",
    "status": "running",
    "version": "0.1.0",
    "description": "Runs code that nobody trusts, for people who do not want an account.",
    "privacy": {"accounts": False, "stored_on_disk": False},
    "notice": None,
    "contact": "abuse@example.org",
    "limits": {"upload_bytes": 104857600, "timeout": 300, "max_timeout": 3600},
    "interpreters": ["python3", "bash"],
    "interpreter_versions": {"python3": "3.11.2", "bash": "5.2.15"},
    "gpus": [
        {
            "device_id": 0,
            "name": "NVIDIA L4",
            "vram_gb": 24.2,
            "cuda_version": "12.4",
            "compute_capability": "8.9",
        }
    ],
}
ENVIRONMENTS: JsonDict = {
    "templates": ["default", "ml-basic"],
    "stats": {
        "total_templates": 2,
        "cached_environments": 1,
        "total_uses": 12,
        "disk_usage_mb": 340.4,
    },
    "details": [
        {
            "name": "default",
            "description": "The interpreters as the system has them; Python with its standard library alone",
            "headline": [],
            "packages": [],
            "interpreters": ["python3", "bash"],
            "interpreter_versions": {"python3": "3.11.2", "bash": "5.2.15"},
            "warm": True,
        },
        {
            "name": "ml-basic",
            "description": "Machine learning on tables: NumPy, SciPy, pandas, scikit-learn",
            "headline": ["numpy==2.4.6", "pandas==3.1.1", "scikit-learn==1.9.1", "scipy==1.17.1"],
            "packages": [
                "joblib==1.6.0",
                "numpy==2.4.6",
                "pandas==3.1.1",
                "scikit-learn==1.9.1",
                "scipy==1.17.1",
            ],
            "interpreters": ["python3", "bash"],
            "interpreter_versions": {"python3": "3.11.2", "bash": "5.2.15"},
            "warm": False,
        },
    ],
}
STATS: JsonDict = {
    "your_quota": {
        "used": 10.2,
        "limit": 10.0,
        "available": 0.0,
        "active_jobs": 0,
        "max_concurrent_jobs": 2,
        "queued_jobs": 0,
        "max_queued_jobs": 10,
        "jobs_this_hour": 4,
        "max_jobs_per_hour": 20,
        "can_submit": False,
        "reason": "CPU quota exhausted (10.2/10.0 seconds used)",
        "retry_after": 45,
    },
    "system": {"queue_length": 0, "active_jobs": 1, "capacity": 8},
}
