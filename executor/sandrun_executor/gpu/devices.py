"""The NVIDIA GPUs for jobs: found once at the start, each leased to one job at a time.

Who asks NVML? Not the root daemon: NVIDIA's library is a large foreign one that talks to a driver. Not the
api: its unit sees no devices, and it would then have to be believed about which nodes to put into a job.
So the daemon starts gpu_probe.py as the api's user, without privileges or descriptors, gives it a
deadline, and decodes one bounded, typed answer; device nodes and libraries it looks up itself.
"""

import os
import stat
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sandrun_executor import helper_process
from sandrun_helpers.messages import Probed
from sandrun_sandbox.layout import DRIVER
from sandrun_shared.protocol import Gpu

DEV = Path("/dev")
PROBE = helper_process.command("sandrun_helpers.gpu_probe")
PROBE_SECONDS = 30.0  # an idle driver initialises its devices first
LIBRARY = "libcuda.so.1"
_LDCONFIG = "/sbin/ldconfig"
_SHARED = ("nvidiactl", "nvidia-uvm")  # every device needs these
_OPTIONAL = ("nvidia-uvm-tools",)
_UNLISTED = (Path("/usr/local/nvidia/lib64"), Path("/usr/lib/wsl/lib"))
_HIDDEN = ("/usr/local/", "/usr/src/")  # of /usr, in a job
_DEFAULT = tuple(
    Path(path)
    for path in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
)


class GpuError(Exception):
    """A device cannot be given to jobs; the text says what to do."""


@dataclass(frozen=True)
class Device:
    """A GPU, and the nodes through which a job uses it: (name, major, minor)."""

    gpu: Gpu
    nodes: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Driver:
    """Where the driver's libraries are: in a folder to mount, or in one for the job's loader to search.

    Neither is set if every loader finds them.
    """

    mounted: str = ""
    searched: str = ""

    @property
    def inside(self) -> str:
        """The folder's name in a job, "" if it needs none."""
        return DRIVER if self.mounted else self.searched


@dataclass(frozen=True)
class Found:
    """The usable devices, and what is wrong with the others."""

    devices: tuple[Device, ...] = ()
    driver: Driver = field(default_factory=Driver)
    problem: str = ""


async def find(user: int, group: int) -> Found:
    """Find the devices of this machine, from NVML and the file system."""
    try:
        probed = await _probe(user, group)
        if not probed.gpus:
            raise GpuError(probed.problem or "the driver shows no GPU")
        driver = driver_in(library_folder(_ldconfig()))
    except GpuError as error:
        return Found(problem=str(error))
    devices, problems = [], [probed.problem] if probed.problem else []
    for gpu, minor in probed.gpus:
        try:
            devices.append(Device(gpu, tuple(_nodes(DEV, minor))))
        except GpuError as error:
            problems.append(f"GPU {gpu.index}: {error}")
    return Found(tuple(devices), driver, "; ".join(problems))


async def _probe(user: int, group: int) -> Probed:
    # NVML may exist where the loader's cache does not list it.
    variables = {"LD_LIBRARY_PATH": ":".join(map(str, _UNLISTED))}
    try:
        answer = await helper_process.ask(PROBE, (user, group), seconds=PROBE_SECONDS, variables=variables)
        return msgspec.msgpack.decode(answer, type=Probed)
    except TimeoutError:
        raise GpuError("NVML does not answer") from None
    except OSError as error:
        raise GpuError(f"the GPU probe cannot be started: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise GpuError("the GPU probe ended without an answer") from None


def _nodes(folder: Path, minor: int) -> Iterable[tuple[str, int, int]]:
    """Look up name, major and minor number of each node a job needs for a device. Raises GpuError."""
    for name in (f"nvidia{minor}", *_SHARED, *_OPTIONAL):
        try:
            found = (folder / name).stat()
        except OSError as error:
            if name in _OPTIONAL:
                continue
            raise GpuError(
                f"{folder / name}: {error.strerror}; `nvidia-modprobe -u -c {minor}` makes it"
            ) from None
        if not stat.S_ISCHR(found.st_mode):
            raise GpuError(f"{folder / name} is not a device")
        yield name, os.major(found.st_rdev), os.minor(found.st_rdev)


def _ldconfig() -> str:
    """Read the loader's cache (ldconfig(8)); "" if that fails."""
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(
            [_LDCONFIG, "-p"], capture_output=True, text=True, timeout=10, check=False, env={}
        ).stdout
    return ""


def library_folder(listing: str, unlisted: Iterable[Path] = _UNLISTED) -> Path:
    """Find the folder of the driver's libraries, from the loader's cache or where containers put them.

    Raises GpuError.
    """
    machine = {"x86_64": "x86-64", "aarch64": "AArch64"}.get(os.uname().machine, "")
    for line in listing.splitlines():
        name, _, rest = line.strip().partition(" ")
        kind, arrow, path = rest.partition(" => ")
        if name == LIBRARY and arrow and machine in kind:
            return Path(path).parent
    for folder in unlisted:
        if (folder / LIBRARY).exists():
            return folder
    raise GpuError(f"{LIBRARY} is not found: install the driver's libraries for CUDA, then run ldconfig")


def driver_in(folder: Path) -> Driver:
    """Decide how a job reaches the libraries in a folder: through its /usr, or by a mount of the folder."""
    library = (folder / LIBRARY).resolve()
    seen = (
        str(library).startswith("/usr/")
        and not str(library).startswith(_HIDDEN)
        and not str(folder).startswith(_HIDDEN)
        and library.stat().st_dev == Path("/usr").stat().st_dev  # a single file may be a mount
    )
    if not seen:
        return Driver(mounted=str(folder))
    listed = folder.resolve()
    return Driver(searched="" if listed in _DEFAULT else str(listed))


class DeviceLease:
    """A job's lease of a device; a context manager that releases it, unless the release is deferred."""

    def __init__(self, device: Device, driver: Driver, release: Callable[[], None]) -> None:
        folder = driver.inside
        self._release = release
        self._kept = False
        # By UUID, because the driver may number other devices too.
        self.variables = {"CUDA_VISIBLE_DEVICES": device.gpu.uuid}
        if folder:
            self.variables["LD_LIBRARY_PATH"] = folder

    def defer_release(self) -> Callable[[], None]:
        """Return what releases the device, to be called once the job is dead and its memory there free."""
        self._kept = True
        return self._release

    def __enter__(self) -> "DeviceLease":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self._release()


class DevicePool:
    """Leases the devices, each to one job at a time."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self._devices = {device.gpu.index: device for device in found.devices}
        self._leased: set[int] = set()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Every device, leased or not."""
        return tuple(device.gpu for device in self.found.devices)

    def knows(self, index: int) -> bool:
        """Whether this device exists."""
        return index in self._devices

    def acquire(self, index: int) -> DeviceLease | None:
        """Lease the device; None while another job has it."""
        if index in self._leased:
            return None
        self._leased.add(index)
        return DeviceLease(self._devices[index], self.found.driver, lambda: self._leased.discard(index))


def for_image(devices: tuple[Device, ...], driver: Driver) -> dict[str, Any]:
    """Describe the devices to the zygote's image (sandrun_sandbox/gpu_files.py)."""
    return {
        "devices": [(device.gpu.index, list(device.nodes)) for device in devices],
        "driver": driver.mounted,
    }
