"""The seccomp filter of jobs, and who may see it refuse."""
