"""How GPUs are found: by NVML in a process without privileges, and in the file system."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest

from sandrun_executor.gpu import devices
from sandrun_executor.gpu.devices import Device, Driver
from sandrun_helpers import gpu_probe
from support.fake_nvml import FakeGpu, FakeNvml

NAME = "GPU-00000000-0000-0000-0000-000000000000"


def test_nvml_is_asked_and_left() -> None:
    nvml = FakeNvml(FakeGpu(0), FakeGpu(3, memory_bytes=80 << 30, capability=(9, 0)))
    probed = gpu_probe.probe(nvml)
    assert probed.problem == ""
    assert [(item.index, item.memory_bytes, item.cuda_version, minor) for item, minor in probed.gpus] == [
        (0, 24 << 30, (12, 4), 0),
        (1, 80 << 30, (12, 4), 3),
    ]
    assert probed.gpus[0][0].uuid == NAME
    assert nvml.open == 0


def test_what_cannot_be_given_to_jobs_is_named() -> None:
    gpus = (FakeGpu(0, instances=True), FakeGpu(1, broken=True), FakeGpu(2, uuid="MIG-x"), FakeGpu(3))
    probed = gpu_probe.probe(FakeNvml(*gpus))
    assert [minor for _, minor in probed.gpus] == [3]
    for words in ("GPU 0: is divided into instances", "GPU 1: GPU is lost", "GPU 2: its UUID"):
        assert words in probed.problem


def test_no_driver_is_told() -> None:
    assert gpu_probe.probe(FakeNvml(no_driver=True)) == gpu_probe.Probed(problem="NVML: Driver Not Loaded")


def test_text_of_the_driver_is_bounded() -> None:
    (found,) = gpu_probe.probe(FakeNvml(FakeGpu(0, name="x\x1b[31m" + "é" * 500))).gpus
    assert len(found[0].name) <= 100
    assert found[0].name.isascii()
    assert found[0].name.isprintable()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit(1)", "without an answer"),
        ("print('x' * 1000000)", "without an answer"),
        ("import sys; sys.stdout.buffer.write(b'\\x81\\xa4gpus\\x90' + b'\\xc0')", "without an answer"),
        ("import time; time.sleep(60)", "does not answer"),
    ],
)
def test_a_helper_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, program: str, words: str) -> None:
    monkeypatch.setattr(devices, "PROBE", [sys.executable, "-c", program])
    monkeypatch.setattr(devices, "PROBE_SECONDS", 2.0)
    found = asyncio.run(devices.find(os.getuid(), os.getgid()))
    assert found.devices == ()
    assert words in found.problem


def test_a_helper_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PROBE", ["/nothing/here"])
    found = asyncio.run(devices.find(os.getuid(), os.getgid()))
    assert "cannot be started: [Errno 2]" in found.problem


def test_the_helper_answers_without_a_driver() -> None:
    """The real probe answers even on a machine without NVIDIA's driver."""
    found = asyncio.run(devices._probe(os.getuid(), os.getgid()))
    assert found.gpus or "NVML" in found.problem or "nvidia-ml-py" in found.problem


def test_nodes_are_devices(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidiactl"):
        (tmp_path / name).symlink_to("/dev/null")
    with pytest.raises(devices.GpuError, match="nvidia-modprobe -u -c 0"):
        list(devices._nodes(tmp_path, 0))
    (tmp_path / "nvidia-uvm").write_text("")
    with pytest.raises(devices.GpuError, match="not a device"):
        list(devices._nodes(tmp_path, 0))
    (tmp_path / "nvidia-uvm").unlink()
    (tmp_path / "nvidia-uvm").symlink_to("/dev/zero")
    assert list(devices._nodes(tmp_path, 0)) == [("nvidia0", 1, 3), ("nvidiactl", 1, 3), ("nvidia-uvm", 1, 5)]


def test_the_library_is_the_one_of_this_machine(tmp_path: Path) -> None:
    machine = {"x86_64": "x86-64", "aarch64": "AArch64"}[os.uname().machine]
    listing = (
        "2 libs found\n\tlibcuda.so (libc6) => /a/libcuda.so\n\tlibcuda.so.1 (libc6) => /32/libcuda.so.1\n"
        f"\tlibcuda.so.1 (libc6,{machine}) => /here/libcuda.so.1\n"
    )
    assert devices.library_folder(listing, ()) == Path("/here")
    (tmp_path / "libcuda.so.1").write_text("")
    assert devices.library_folder("", (tmp_path,)) == tmp_path
    with pytest.raises(devices.GpuError, match="libcuda"):
        devices.library_folder("", ())


def test_libraries_outside_of_usr_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("")
    assert devices.driver_in(tmp_path) == Driver(mounted=str(tmp_path))
    assert Driver(mounted="/x").inside == "/opt/nvidia"
    assert Driver(searched="/usr/lib/nvidia").inside == "/usr/lib/nvidia"


def test_a_device_is_lent_once() -> None:
    answer = gpu_probe.probe(FakeNvml(FakeGpu(0)))
    found = msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=devices.Probed)
    gpus = devices.DevicePool(devices.Found((Device(found.gpus[0][0], ()),), Driver(mounted="/x")))
    lease = gpus.acquire(0)
    assert lease is not None
    assert lease.variables == {"CUDA_VISIBLE_DEVICES": NAME, "LD_LIBRARY_PATH": "/opt/nvidia"}
    with lease:
        assert gpus.acquire(0) is None
    again = gpus.acquire(0)
    assert again is not None
    with again:
        dead = again.defer_release()
    assert gpus.acquire(0) is None
    dead()
    assert gpus.acquire(0) is not None
    assert (gpus.knows(0), gpus.knows(1)) == (True, False)


def test_nothing_but_the_helper_knows_nvml() -> None:
    house = Path(gpu_probe.__file__).parents[1]
    sources = [
        path for name in ("sandrun_executor", "sandrun_helpers") for path in (house / name).rglob("*.py")
    ]
    assert {path.name for path in sources if "import pynvml" in path.read_text()} == {"gpu_probe.py"}
    assert not [path for path in sources if "import gpu_probe" in path.read_text()]
