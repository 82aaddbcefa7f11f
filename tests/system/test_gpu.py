"""Jobs with a GPU, up to the device: fake nodes and libraries, and a fake NVML that a real helper asks."""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandrun_admin import gpu_check, gpu_job
from sandrun_executor.seccomp.nvidia import NVIDIA_FRONTEND, NVIDIA_UVM, NVIDIA_UVM_START
from sandrun_shared.jobs import Installer
from sandrun_shared.protocol import Installed
from support import machine
from support.executor import PYTHON, USER, ExecutorProcess, RefusedError, next_uids
from support.registry import Registry, address, wheel

PROGRAM = Path(__file__).parents[1] / "support" / "gpu_executor.py"
# On an invalid descriptor, for which the kernel returns EBADF where the filter allows the call.
REPORT = """
import ctypes, errno, json, os, stat
libc = ctypes.CDLL(None, use_errno=True)
def asked(request):
    ctypes.set_errno(0)
    libc.ioctl(99, ctypes.c_ulong(request), None)
    return errno.errorcode[ctypes.get_errno()]
def read(path):
    try:
        with open(path) as file: return file.read()
    except OSError as error: return error.errno
print(json.dumps({
    'nodes': {n: os.stat('/dev/' + n).st_rdev for n in sorted(os.listdir('/dev')) if n.startswith('nvidia')},
    'opened': [len(os.read(os.open('/dev/' + n, os.O_RDWR), 8)) for n in os.listdir('/dev') if n.startswith('nvidia')],
    'variables': {k: os.environ.get(k) for k in ('CUDA_VISIBLE_DEVICES', 'LD_LIBRARY_PATH')},
    'library': read('/opt/nvidia/libcuda.so.1'),
    'params': read('/proc/driver/nvidia/params'),
    'ioctl': [asked(int(word)) for word in os.environ['ASKED'].split()],
    'written': os.access('/opt/nvidia', os.W_OK),
    'mounts': [line.split()[4:6] for line in open('/proc/self/mountinfo')],
}))
"""
MODIFIED = 0xC0000000 | 0x30 << 16  # as a request with an argument of 48 bytes looks
ASKED = {
    "rm_alloc": (MODIFIED | NVIDIA_FRONTEND[3], True),
    "uvm_start": (NVIDIA_UVM_START[0], True),
    "uvm": (NVIDIA_UVM[0], True),
    "fionread": (0x541B, True),
    "registry": (MODIFIED | ord("F") << 8 | 0x4D, False),
    "fibmap": (1, False),
    "uvm_tools": (62, False),
    "other_type": (MODIFIED | ord("G") << 8 | 0x2A, False),
    "unknown": (0xABCD, False),
}


@pytest.fixture(scope="module")
def driver() -> Iterator[Path]:
    """A folder with nodes that read as zeros, and a library; not below /tmp, where the image is made."""
    folder = Path(tempfile.mkdtemp(prefix="driver-", dir="/var/tmp"))
    (folder / "dev").mkdir()
    (folder / "lib").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        os.mknod(folder / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (folder / "lib" / "libcuda.so.1").write_text("the library")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def with_gpus(driver: Path) -> Iterator[ExecutorProcess]:
    executor = ExecutorProcess(gpu=True, parked=1)
    executor.command = [str(PROGRAM), str(driver), "2"]
    with executor:
        yield executor


def report(executor: ExecutorProcess, gpu: int | None) -> dict[str, object]:
    numbers = " ".join(str(number) for number, _ in ASKED.values())
    answer: dict[str, object] = json.loads(executor.run_job(REPORT, env={"ASKED": numbers}, gpu=gpu).ok())
    return answer


def test_devices_are_described(with_gpus: ExecutorProcess) -> None:
    description = with_gpus.describe()
    assert [(gpu.index, gpu.name, gpu.memory_bytes) for gpu in description.gpus] == [
        (0, "NVIDIA Fake 24GB", 24 << 30),
        (1, "NVIDIA Fake 24GB", 24 << 30),
    ]
    assert description.gpu_problem == ""


@pytest.mark.parametrize("index", [0, 1])
def test_a_job_has_its_device_and_no_other(with_gpus: ExecutorProcess, index: int) -> None:
    seen = report(with_gpus, index)
    zero = os.makedev(1, 5)
    assert seen["nodes"] == {"nvidia-uvm": zero, f"nvidia{index}": zero, "nvidiactl": zero}
    assert seen["opened"] == [8, 8, 8]
    assert seen["variables"] == {
        "CUDA_VISIBLE_DEVICES": f"GPU-00000000-0000-0000-0000-{index:012x}",
        "LD_LIBRARY_PATH": "/opt/nvidia",
    }
    assert seen["library"] == "the library"
    assert str(seen["params"]).startswith("ModifyDeviceFiles: 0\n") or not Path("/proc/driver").exists()
    assert seen["ioctl"] == ["EBADF" if passes else "ENOTTY" for _, passes in ASKED.values()]
    assert seen["written"] is False
    flags = dict(seen["mounts"])  # type: ignore[call-overload]
    assert {"ro", "nosuid", "nodev"} <= set(flags["/opt/nvidia"].split(","))
    assert {"ro", "nosuid", "nodev"} <= set(flags["/"].split(","))
    for name in seen["nodes"]:  # type: ignore[attr-defined]
        assert {"ro", "nosuid", "noexec"} == set(flags[f"/dev/{name}"].split(",")) - {"relatime"}


def test_another_job_has_nothing_of_it(with_gpus: ExecutorProcess) -> None:
    seen = report(with_gpus, None)
    assert (seen["nodes"], seen["library"], seen["params"]) == ({}, 2, 2)
    assert seen["variables"] == {"CUDA_VISIBLE_DEVICES": None, "LD_LIBRARY_PATH": None}
    plain = ("fionread",)
    assert seen["ioctl"] == ["EBADF" if name in plain else "ENOTTY" for name in ASKED]


def test_every_interpreter_gets_it(with_gpus: ExecutorProcess) -> None:
    job = "echo $CUDA_VISIBLE_DEVICES; cat /opt/nvidia/libcuda.so.1"
    assert with_gpus.run_job(job, "main", "bash", gpu=0).ok().endswith(b"0000\nthe library")


def test_one_job_at_a_time_has_a_device(with_gpus: ExecutorProcess) -> None:
    first = with_gpus.start_job("print('has it', flush=True)\nimport time\ntime.sleep(60)", gpu=0)
    first.printed(b"has it")
    with pytest.raises(RefusedError, match="GPU 0 is in use"):
        with_gpus.run_job("print(1)", gpu=0)
    assert with_gpus.run_job("print(1)", gpu=1).ok() == b"1\n"
    assert with_gpus.run_job("print(1)").ok() == b"1\n"
    first.hang_up()

    def is_free() -> bool:
        try:
            return with_gpus.run_job("print(2)", gpu=0).ok() == b"2\n"
        except RefusedError as error:
            assert error.reason == "full"
            return False

    assert machine.eventually(is_free)


def test_a_device_that_is_not_there_is_refused(with_gpus: ExecutorProcess, executor: ExecutorProcess) -> None:
    for running, index in ((with_gpus, 2), (executor, 0)):
        with pytest.raises(RefusedError, match=f"there is no GPU {index}"):
            running.run_job("print(1)", gpu=index)
    assert executor.describe().gpus == ()


def test_a_node_that_is_missing_is_told(driver: Path) -> None:
    executor = ExecutorProcess(gpu=True, parked=0)
    executor.command = [str(PROGRAM), str(driver), "3"]
    with executor:
        description = executor.describe()
        assert [gpu.index for gpu in description.gpus] == [0, 1]
        assert "nvidia2: No such file" in description.gpu_problem
        assert executor.run_job("print(1)", gpu=1).ok() == b"1\n"


def test_packages_are_installed_while_another_job_has_the_device(driver: Path, tmp_path: Path) -> None:
    with Registry(tmp_path, address(6)) as registry:
        line = registry.add(wheel("greeting", "1.0", {"greeting.py": "TEXT = 'hello'"}))
        executor = ExecutorProcess(
            gpu=True,
            parked=0,
            hosts={"registry.test": registry.address},
            package_hosts="registry.test",
            package_networks=f"{registry.address}/32",
            package_index_url="https://registry.test/simple/",
            package_ca=registry.certificate,
        )
        executor.command = [str(PROGRAM), str(driver), "1"]
        requires = (Installer.uv, {"requirements.txt": line.encode()})
        program = "import greeting, os; print(greeting.TEXT, os.environ['CUDA_VISIBLE_DEVICES'][-1])"
        with executor:
            other = executor.start_job("print('has it', flush=True)\nimport time\ntime.sleep(60)", gpu=0)
            other.printed(b"has it")
            job = executor.start_job(program, requires=requires, install_only=True)
            job.until(lambda job: isinstance(job.events[-1] if job.events else None, Installed)).hang_up()
            asked = len(registry.asked)
            other.hang_up()

            def ran() -> bool:
                try:
                    return executor.run_job(program, requires=requires, gpu=0).ok() == b"hello 0\n"
                except RefusedError as error:  # the other is not dead yet
                    assert error.reason == "full"
                    return False

            assert machine.eventually(ran)
            assert len(registry.asked) == asked


@pytest.mark.parametrize(("program", "status"), [("print('fine')", 0), (gpu_job.PROGRAM, 1)])
def test_doctor_runs_its_jobs(
    driver: Path, monkeypatch: pytest.MonkeyPatch, program: str, status: int
) -> None:
    """The real program finds no library that it can load, which is no ELF file here."""
    monkeypatch.setattr(gpu_job, "PROGRAM", program)
    monkeypatch.setattr(gpu_check, "UIDS", next_uids())
    monkeypatch.setenv("SANDRUN_EXECUTOR__USER", USER)
    monkeypatch.setenv("SANDRUN_EXECUTOR__FIRST_UID", "2000000")
    said: list[str] = []
    assert gpu_check.run(None, [*PYTHON, str(PROGRAM), str(driver), "1"], said.append) == status
    text = "\n".join(said)
    assert "ok       GPU 0: NVIDIA Fake 24GB, 25.8 GB, CUDA 12.4, compute capability 8.9" in text
    assert text.count("fine" if status == 0 else "OSError: /opt/nvidia/libcuda.so.1") >= 3
    assert ("MISSING" in text) == (status == 1)


def test_doctor_without_a_gpu(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDRUN_EXECUTOR__USER", USER)
    said: list[str] = []
    assert gpu_check.run(None, [*PYTHON, str(PROGRAM), str(driver), "0"], said.append) == 1
    assert said == ["advice   the driver shows no GPU", "MISSING  GPU: there is none for jobs"]
