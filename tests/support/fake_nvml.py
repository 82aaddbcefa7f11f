"""A fake NVML; as a program, fake_nvml.py [COUNT] prints what gpu_probe.py would print with it."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace


class NVMLError(Exception):
    """The exception, as in pynvml."""


@dataclass
class FakeGpu:
    """One device."""

    minor: int
    name: str = "NVIDIA Fake 24GB"
    memory_bytes: int = 24 << 30
    capability: tuple[int, int] = (8, 9)
    instances: bool = False
    broken: bool = False
    uuid: str = ""


class FakeNvml:
    """The functions that the probe calls, under their names."""

    NVMLError = NVMLError

    def __init__(self, *gpus: FakeGpu, cuda: int = 12040, no_driver: bool = False) -> None:
        self._gpus = gpus
        self._cuda = cuda
        self._no_driver = no_driver
        self.open = 0

    def nvmlInit(self) -> None:
        if self._no_driver:
            raise NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self._cuda

    def nvmlDeviceGetCount(self) -> int:
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        if self._gpus[index].broken:
            raise NVMLError("GPU is lost")
        return self._gpus[index]

    def nvmlDeviceGetMinorNumber(self, gpu: FakeGpu) -> int:
        return gpu.minor

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> tuple[int, int]:
        if not gpu.instances:
            raise NVMLError("Not Supported")
        return 1, 1

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return gpu.uuid or f"GPU-00000000-0000-0000-0000-{gpu.minor:012x}"

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> bytes:
        return gpu.name.encode()

    def nvmlDeviceGetCudaComputeCapability(self, gpu: FakeGpu) -> tuple[int, int]:
        return gpu.capability

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(total=gpu.memory_bytes)


def main() -> None:
    import msgspec

    from sandrun_helpers.gpu_probe import probe

    gpus = [FakeGpu(minor) for minor in range(int(sys.argv[1]))]
    sys.stdout.buffer.write(msgspec.msgpack.encode(probe(FakeNvml(*gpus))))


if __name__ == "__main__":
    main()
