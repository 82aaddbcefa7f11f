"""Paths, ids and variables of a sandbox that its inside and root both name; constants only."""

from __future__ import annotations

PYTHON = "/usr/bin/python3"  # of the machine, and so of every sandbox
WORK, HOME = "/work", "/home/job"
ENVIRONMENT = "/usr/environment"  # where a job finds its packages, if its environment has any
# Where packages are: below /usr, whose rule of Landlock holds for them too. INSTALLED in every job that
# requires some, TOOLS only while they are installed.
PACKAGES = "/usr/packages"
INSTALLED, TOOLS = PACKAGES + "/installed", PACKAGES + "/tools"
# What an installer may use while it runs: in the layer, which is large, and deleted before that is sealed.
SCRATCH = INSTALLED + "/.scratch"
TEMPORARY = SCRATCH + "/temporary"
DRIVER = "/opt/nvidia"  # libraries of a GPU's driver that are not in the job's /usr
WRITABLE = (WORK, HOME, "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 (the sandbox's own)

ZYGOTE_PROGRAM = "/zygote.pyc"  # in the image's parent, out of every job's sight
PREVIEW_PROGRAM = WORK + "/zygote.pyc"
PREVIEW_UID = 65534  # nobody: who imports the modules of an environment ahead of jobs

UNBUFFERED = "PYTHONUNBUFFERED"
VARIABLES = {  # of every job
    "PATH": "/usr/bin:/bin",
    "HOME": HOME,
    "USER": "job",
    "LOGNAME": "job",
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108 (the job's own)
    UNBUFFERED: "1",  # somebody may be following what a program prints
}
# How many threads a numerical library starts.
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
