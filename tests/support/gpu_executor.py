"""The executor with a fake driver: gpu_executor.py FOLDER COUNT, with nodes and libraries in the folder."""

import asyncio
import logging
import sys
from pathlib import Path

from sandrun_executor.daemon import serve
from sandrun_executor.gpu import devices
from sandrun_shared.settings import load

NVML = Path(__file__).with_name("fake_nvml.py")


def main() -> int:
    folder = Path(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    devices.DEV = folder / "dev"
    devices.PROBE = [sys.executable, "-P", str(NVML), sys.argv[2]]
    devices._ldconfig = lambda: f"\tlibcuda.so.1 (libc6,x86-64, AArch64) => {folder}/lib/libcuda.so.1\n"
    asyncio.run(serve(load(None)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
