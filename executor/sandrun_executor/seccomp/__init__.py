"""The seccomp filter of jobs, and whether the kernel logs what it refuses."""
