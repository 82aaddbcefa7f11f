"""What is known of a GPU and its driver, as the executor's parts hand it to each other."""

from dataclasses import dataclass
from typing import Any

from sandrun_sandbox.layout import DRIVER
from sandrun_shared.protocol import Gpu


@dataclass(frozen=True)
class Device:
    """A GPU, and the nodes through which a job uses it: (name, major, minor)."""

    gpu: Gpu
    nodes: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Driver:
    """Where the driver's libraries are: in a folder to mount, or in one that a job's loader is to search.

    Neither is set where every loader finds them.
    """

    mounted: str = ""
    searched: str = ""

    @property
    def inside(self) -> str:
        """The folder's name in a job, "" if it needs none."""
        return DRIVER if self.mounted else self.searched


def for_image(devices: tuple[Device, ...], driver: Driver) -> dict[str, Any]:
    """What the zygote's image needs to know of them (sandrun_sandbox/gpu_files.py)."""
    return {
        "devices": [(device.gpu.index, list(device.nodes)) for device in devices],
        "driver": driver.mounted,
    }
