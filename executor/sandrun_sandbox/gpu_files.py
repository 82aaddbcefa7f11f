"""The additional files of a job with a GPU: device nodes, the driver's libraries, its files of /proc.

Each device has a separate layer, which is mounted over the image for jobs that have the device.
"""

from __future__ import annotations

import os
import stat

from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.layout import DRIVER

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from typing import Any

_LAYERS, _MOUNTED = "/gpu", "/driver"  # in the image's parent
_TOLD = "/var/gpu"  # in a job
# The driver's library looks up its modules and numbers, and whether it may make nodes (it may not).
_PARAMETERS = "ModifyDeviceFiles: 0\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n"


def build(base: str, wanted: dict[str, Any]) -> None:
    """Make the layers below base. Raises OSError.

    wanted: devices, a list of (index, [(node, major, minor)]); driver, a folder to mount or "".
    """
    if not wanted["devices"]:
        return
    told = {"modules": _lines("/proc/modules"), "devices": _lines("/proc/devices")}
    for index, nodes in wanted["devices"]:
        layer = f"{base}{_LAYERS}/{index}"
        for folder in ("dev", DRIVER[1:], f"{_TOLD[1:]}/driver/nvidia", f"{_TOLD[1:]}/driver/nvidia-uvm"):
            os.makedirs(f"{layer}/{folder}")
        for name, major, minor in nodes:
            os.mknod(f"{layer}/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
            os.chmod(f"{layer}/dev/{name}", 0o666)  # noqa: S103 (as the driver makes them)
        for name, text in (*told.items(), ("driver/nvidia/params", _PARAMETERS)):
            with open(f"{layer}{_TOLD}/{name}", "w") as file:
                file.write(text)
    if wanted["driver"]:
        os.mkdir(base + _MOUNTED)
        linux.mount(wanted["driver"], base + _MOUNTED, "", linux.MS_BIND | linux.MS_REC)
        flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
        linux.mount("", base + _MOUNTED, "", flags)


def _lines(path: str) -> str:
    """Filter the lines of a file of /proc that are about NVIDIA's driver."""
    try:
        with open(path) as file:
            return "".join(line for line in file if "nvidia" in line)
    except OSError:
        return ""


def layers(gpu: int | None) -> str:
    """The overlay's layers above the image: none for a job without a GPU."""
    return "" if gpu is None else f"{_LAYERS}/{gpu}:"


def nodes(gpu: int) -> list[tuple[bytes, bytes]]:
    """List the binds that make the device's nodes open in a nodev root. Raises OSError."""
    return [(f"/new/dev/{name}".encode(),) * 2 for name in os.listdir(f"{_LAYERS}/{gpu}/dev")]


def mount_driver(gpu: int | None) -> None:
    """Mount the driver's libraries in the job's root, unless they are in its /usr. Raises OSError."""
    if gpu is not None and os.path.isdir(_MOUNTED):
        linux.mount(_MOUNTED, "/new" + DRIVER, "", linux.MS_BIND | linux.MS_REC)


def masks(pairs: list[tuple[bytes, bytes]], gpu: int | None) -> list[tuple[bytes, bytes]]:
    """The masks of /proc, with the driver's own files where these would be masked."""
    if gpu is None:
        return pairs
    told = {
        b"/new/proc/" + name: b"/new" + _TOLD.encode() + b"/" + name
        for name in (b"modules", b"devices", b"driver")
    }
    return [(told.get(target, source), target) for source, target in pairs]
