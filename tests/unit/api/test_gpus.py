"""GPUs of a manifest: which devices fit, what is refused and how, and who gets one when."""

import pytest

from sandrun_api.errors import ApiError
from sandrun_api.jobs import gpus
from sandrun_api.jobs import manifest as manifests
from sandrun_shared.protocol import Description, Gpu


def device(index: int, memory_gb: int = 24, capability: tuple[int, int] = (8, 9)) -> Gpu:
    return Gpu(index, f"GPU-{index:08x}", "NVIDIA Fake", memory_gb << 30, capability, (12, 4))


def worker(*devices: Gpu, problem: str = "") -> Description:
    return Description(1, 0, (), (), gpus=devices, gpu_problem=problem)


def wish(text: str) -> gpus.Gpu | None:
    return manifests.parse('{"entrypoint": "a", "gpu": ' + text + "}").gpu


TWO = worker(device(0, 80, (9, 0)), device(1))


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("null", ()),
        ("{}", (1, 0)),  # the smaller one first
        ('{"device_id": 0}', (0,)),
        ('{"min_vram_gb": 24}', (1, 0)),
        ('{"min_vram_gb": 80}', (0,)),
        ('{"compute_capability": "9.0"}', (0,)),
        ('{"compute_capability": "8", "cuda_version": "12.4"}', (1, 0)),
        ('{"cuda_version": "11.8"}', (1, 0)),
        ('{"required": false, "min_vram_gb": 500}', ()),
        ('{"required": false, "device_id": 1}', (1,)),
    ],
)
def test_devices_that_fit(text: str, devices: tuple[int, ...]) -> None:
    assert gpus.accepted(wish(text), TWO) == devices


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ('{"device_id": 2}', "/gpu/device_id"),
        ('{"min_vram_gb": 141.5}', "/gpu/min_vram_gb"),
        ('{"cuda_version": "12.5"}', "/gpu/cuda_version"),
        ('{"compute_capability": "9.1"}', "/gpu/compute_capability"),
        ('{"compute_capability": "10.0"}', "/gpu/compute_capability"),  # numbers, not text
    ],
)
def test_what_no_device_meets_is_named(text: str, pointer: str) -> None:
    with pytest.raises(ApiError) as caught:
        gpus.accepted(wish(text), TWO)
    assert (caught.value.status, caught.value.errors[0].pointer) == (400, pointer)
    assert "GPU 1 is NVIDIA Fake with 25.8 GB, CUDA 12.4, compute capability 8.9" in caught.value.reason


@pytest.mark.parametrize(
    "text",
    [
        '{"device_id": -1}',
        '{"device_id": 64}',
        '{"min_vram_gb": 0}',
        '{"min_vram_gb": "24"}',
        '{"cuda_version": "twelve"}',
        '{"compute_capability": 8.0}',
        '{"memory": 1}',
        '{"required": 1}',
        "true",
    ],
)
def test_a_wish_must_be_well_formed(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        wish(text)
    assert caught.value.status == 400
    assert caught.value.errors[0].pointer.startswith("/gpu")


def test_a_server_without_gpus() -> None:
    with pytest.raises(ApiError) as caught:
        gpus.accepted(wish("{}"), worker())
    assert (caught.value.status, caught.value.errors[0].pointer) == (400, "/gpu")
    assert gpus.accepted(wish('{"required": false}'), worker()) == ()


def test_gpus_out_of_order_may_come_back() -> None:
    with pytest.raises(ApiError) as caught:
        gpus.accepted(wish("{}"), worker(problem="NVML: Driver Not Loaded"))
    assert (caught.value.status, caught.value.retry_after) == (503, gpus.RETRY_SECONDS)
    assert "Driver" not in caught.value.reason


def test_a_device_has_one_job() -> None:
    shares = gpus.Shares()
    assert shares.take((1, 0)) == 1
    assert shares.take((1, 0)) == 0
    assert shares.take((1, 0)) is None
    assert not shares.has_one((0, 1))
    shares.give_back(1)
    assert shares.has_one((0, 1))
    assert shares.take(()) is None
