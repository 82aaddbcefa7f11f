"""The folders in which a job may write."""

from dataclasses import dataclass

from sandrun_shared.jobs import Limits


@dataclass(frozen=True)
class Folders:
    """The size of the job's tmpfs folders, in bytes and inodes."""

    disk_bytes: int
    inodes: int
    shm_bytes: int

    @classmethod
    def of(cls, limits: Limits) -> "Folders":
        """What these limits allow."""
        return cls(limits.disk_bytes, limits.inodes, limits.memory_bytes)

    def as_message(self) -> dict[str, int]:
        """For the channel to PID 1."""
        return {"disk_bytes": self.disk_bytes, "inodes": self.inodes, "shm_bytes": self.shm_bytes}
