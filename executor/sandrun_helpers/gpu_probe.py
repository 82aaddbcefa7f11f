"""`python -m sandrun_helpers.gpu_probe`: says on standard output, as msgpack, which NVIDIA GPUs there are.

A separate process without privileges (see gpu/devices.py). Nothing else imports pynvml, or this module.
"""

import re
import sys
from typing import Any

import msgspec

from sandrun_helpers.messages import Probed
from sandrun_shared.protocol import MAX_GPUS, Gpu

_UUID = re.compile(r"GPU-[0-9a-f-]{1,60}\Z")


def probe(nvml: Any) -> Probed:
    """Ask NVML, whose functions are the module's attributes (NVIDIA's nvidia-ml-py)."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Probed(problem=f"NVML: {_text(error)}")
    try:
        version = int(nvml.nvmlSystemGetCudaDriverVersion_v2())  # 12040 is 12.4
        cuda = (version // 1000, version % 1000 // 10)
        gpus, problems = [], []
        for index in range(min(int(nvml.nvmlDeviceGetCount()), MAX_GPUS)):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                gpus.append((_gpu(nvml, handle, index, cuda), int(nvml.nvmlDeviceGetMinorNumber(handle))))
            except nvml.NVMLError as error:
                problems.append(f"GPU {index}: {_text(error)}")
            except ValueError as error:
                problems.append(f"GPU {index}: {error}")
        return Probed(tuple(gpus), "; ".join(problems))
    except nvml.NVMLError as error:
        return Probed(problem=f"NVML: {_text(error)}")
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, handle: object, index: int, cuda: tuple[int, int]) -> Gpu:
    if _has_instances(nvml, handle):
        raise ValueError("is divided into instances (MIG), which jobs cannot have yet")
    uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    if not _UUID.match(uuid):
        raise ValueError("its UUID does not have the form GPU-…")
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        uuid=uuid,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        compute_capability=(int(major), int(minor)),
        cuda_version=cuda,
    )


def _has_instances(nvml: Any, handle: object) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # a device without this mode
        return False
    return bool(current)


def _text(value: object) -> str:
    """Reduce to at most 100 printable ASCII characters."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return "".join(char if " " <= char <= "~" else "?" for char in text[:100])


def _module() -> Any:
    try:
        import pynvml  # noqa: PLC0415 (only in this process)
    except ImportError:
        return None
    return pynvml


def main() -> int:
    """Print the GPUs; returns the exit status."""
    nvml = _module()
    probed = Probed(problem="nvidia-ml-py is not installed") if nvml is None else probe(nvml)
    sys.stdout.buffer.write(msgspec.msgpack.encode(probed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
