"""Starts the zygotes of environments and prepares the sandboxes that these fork."""

from typing import Any

from sandrun_executor import kernel
from sandrun_executor.cgroups.probe import Cgroup
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_executor.sandboxes.slots import Slots
from sandrun_executor.sandboxes.zygote import Image, Zygote
from sandrun_shared.jobs import Limits


def core_bytes() -> int:
    """RLIMIT_CORE of jobs: a piped core_pattern ignores 0 but not 1 (core(5))."""
    return 1 if kernel.pipes_cores(kernel.CORE_PATTERN.read_text()) else 0


class SandboxMaker:
    """Makes zygotes and sandboxes with the parameters that all of them share."""

    def __init__(self, slots: Slots, seccomp: bytes, limits: Limits) -> None:
        """seccomp: the filter's BPF; limits: those that most jobs have."""
        self._slots = slots
        self._seccomp = seccomp
        self._limits = limits
        self._zygote_cgroup: Cgroup | None = None
        self.gpus: dict[str, Any] | None = None  # for zygotes that start from now on

    async def start_zygote(self, image: Image | None) -> Zygote:
        """Start a zygote, the system's if image is None. Raises ZygoteError, CgroupError, OSError."""
        self._zygote_cgroup = self._zygote_cgroup or self._slots.create_cgroup("zygote")
        return await Zygote.start(
            self._zygote_cgroup,
            self._seccomp,
            core_bytes=core_bytes(),
            noswap=kernel.noswap_option(),
            image=image,
            gpus=self.gpus,
        )

    async def prepare(self, zygote: Zygote, gpu: int | None = None) -> Sandbox:
        """Prepare a sandbox for a job, with a GPU if it is to have one. Raises as Sandbox.prepare."""
        return await Sandbox.prepare(zygote, self._slots, self._limits, gpu)

    async def prepare_to_install(self, zygote: Zygote, limits: Limits) -> Sandbox:
        """Prepare a sandbox that installs packages. Raises as Sandbox.prepare."""
        return await Sandbox.prepare(zygote, self._slots, limits, installs=True)
