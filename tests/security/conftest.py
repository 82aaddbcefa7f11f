"""Every test here runs jobs on a real executor and leaves the machine as it was."""

from support.fixtures import _root, executor, leftovers

__all__ = ["_root", "executor", "leftovers"]
