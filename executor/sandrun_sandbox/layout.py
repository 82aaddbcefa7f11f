"""Paths, ids and variables that root and the sandbox share; constants only."""

from __future__ import annotations

PYTHON = "/usr/bin/python3"  # the machine's, and so every sandbox's
WORK, HOME = "/work", "/home/job"
ENVIRONMENT = "/usr/environment"  # where a job finds its packages, if its environment has any
# Packages are below /usr, so that its Landlock rule covers them. INSTALLED exists in every job that requires
# packages, TOOLS only during an installation.
PACKAGES = "/usr/packages"
INSTALLED, TOOLS = PACKAGES + "/installed", PACKAGES + "/tools"
# Scratch space of an installer: in the layer, which is large; deleted before the layer is sealed.
SCRATCH = INSTALLED + "/.scratch"
TEMPORARY = SCRATCH + "/temporary"
DRIVER = "/opt/nvidia"  # libraries of a GPU's driver that are not in the job's /usr
WRITABLE = (WORK, HOME, "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 (the sandbox's own)

ZYGOTE_PROGRAM = "/zygote.pyc"  # in the image's parent, out of every job's sight
PREVIEW_PROGRAM = WORK + "/zygote.pyc"
PREVIEW_UID = 65534  # nobody: imports the modules of an environment ahead of jobs

UNBUFFERED = "PYTHONUNBUFFERED"
VARIABLES = {  # of every job
    "PATH": "/usr/bin:/bin",
    "HOME": HOME,
    "USER": "job",
    "LOGNAME": "job",
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108 (the job's own)
    UNBUFFERED: "1",  # a client may be following the output
}
# These set how many threads a numerical library starts.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Why files are left out (sandrun_shared.jobs.LeftOutReason): the order is that of the report.
REASONS = (
    "path_too_long",
    "too_deep",
    "same_name",
    "unreadable",
    "too_large",
    "too_many_files",
    "too_many_entries",
    "no_memory",
    "out_of_time",
)
