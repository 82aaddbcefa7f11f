"""GPUs: which devices of the worker a manifest accepts, and which of them jobs have."""

from pydantic import Field

from sandrun_api.errors import ApiError, bad_request
from sandrun_api.uploads.documents import Document
from sandrun_shared.protocol import MAX_GPUS, Description
from sandrun_shared.protocol import Gpu as Device

GB = 10**9  # as makers count: an "80 GB" device has somewhat more than this many times 80
RETRY_SECONDS = 60
_VERSION = r"^\d{1,3}(\.\d{1,3})?$"


class Gpu(Document):
    """A GPU that a job needs, or would like to have; what is left out does not matter."""

    required: bool = Field(True, description="Without one the job is refused; else it then runs without.")
    device_id: int | None = Field(None, ge=0, lt=MAX_GPUS, description="This device and no other.")
    min_vram_gb: float | None = Field(
        None, gt=0, le=1e6, allow_inf_nan=False, description="Memory of the device in 10^9 bytes."
    )
    cuda_version: str | None = Field(
        None, pattern=_VERSION, description="Oldest CUDA that the driver must support, such as 12.4."
    )
    compute_capability: str | None = Field(
        None, pattern=_VERSION, description="Lowest compute capability of the device, such as 8.0."
    )


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def _lacks(gpu: Device, wish: Gpu) -> str:
    """The first field of the wish that the device does not meet, "" when it meets all."""
    if wish.device_id not in (None, gpu.index):
        return "device_id"
    if wish.min_vram_gb is not None and gpu.memory_bytes < wish.min_vram_gb * GB:
        return "min_vram_gb"
    if wish.cuda_version is not None and gpu.cuda_version < _version(wish.cuda_version):
        return "cuda_version"
    if wish.compute_capability is not None and gpu.compute_capability < _version(wish.compute_capability):
        return "compute_capability"
    return ""


def described(gpu: Device) -> dict[str, str | int | float]:
    """A device as clients read it."""
    return {
        "device_id": gpu.index,
        "name": gpu.name,
        "vram_gb": round(gpu.memory_bytes / GB, 1),
        "cuda_version": "{}.{}".format(*gpu.cuda_version),
        "compute_capability": "{}.{}".format(*gpu.compute_capability),
    }


def accepted(wish: Gpu | None, worker: Description) -> tuple[int, ...]:
    """The devices a job may have, best first; none if it is to run without.

    Raises ApiError: 400 for a wish that no device here meets, 503 while devices are out of order.
    """
    if wish is None:
        return ()
    lacking = {gpu.index: _lacks(gpu, wish) for gpu in worker.gpus}
    fitting = [gpu for gpu in worker.gpus if not lacking[gpu.index]]
    if fitting or not wish.required:
        # The smallest that will do: the larger ones are for jobs that need them.
        return tuple(gpu.index for gpu in sorted(fitting, key=lambda gpu: (gpu.memory_bytes, gpu.index)))
    if worker.gpu_problem:
        raise ApiError(503, "The server's GPUs are out of order; try again later.", retry_after=RETRY_SECONDS)
    if not worker.gpus:
        raise bad_request("This server has no GPU for jobs: leave 'gpu' out.", "/gpu")
    devices = "; ".join(
        "GPU {device_id} is {name} with {vram_gb} GB, CUDA {cuda_version}, compute capability"
        " {compute_capability}".format(**described(gpu))
        for gpu in worker.gpus[:8]
    )
    faults = [field for field in type(wish).model_fields if field in lacking.values()]
    raise bad_request(f"No GPU here meets '{faults[0]}': {devices}.", f"/gpu/{faults[0]}")


class Shares:
    """Which devices running jobs have, one job each."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def has_one(self, devices: tuple[int, ...]) -> bool:
        """Whether one of these is free."""
        return any(device not in self._taken for device in devices)

    def take(self, devices: tuple[int, ...]) -> int | None:
        """The first of these that is free."""
        device = next((device for device in devices if device not in self._taken), None)
        if device is not None:
            self._taken.add(device)
        return device

    def give_back(self, device: int) -> None:
        """The job that had it ended."""
        self._taken.discard(device)
