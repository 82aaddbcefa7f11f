"""GPUs over HTTP: what is offered, what is refused before the queue, what the executor is asked for."""

import json

import httpx
import pytest

from sandrun_shared.jobs import Installer
from sandrun_shared.protocol import Gpu
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live

pytestmark = pytest.mark.anyio
DEVICE = Gpu(0, "GPU-0", "NVIDIA Fake", 24 << 30, (8, 9), (12, 4))


async def submit(live: Live, gpu: object) -> httpx.Response:
    return await live.client.post(
        "/submit",
        files=[("files", ("main.py", programs.HELLO.code.encode()))],
        data={"manifest": json.dumps({"entrypoint": "main.py", "gpu": gpu})},
    )


async def test_a_job_asks_for_the_device_that_is_listed(live_fake: Live, fake: FakeExecutor) -> None:
    fake.gpus = (DEVICE,)
    assert (await live_fake.client.get("/")).json()["gpus"] == [
        {
            "device_id": 0,
            "name": "NVIDIA Fake",
            "vram_gb": 25.8,
            "cuda_version": "12.4",
            "compute_capability": "8.9",
        }
    ]
    taken = await submit(live_fake, {"min_vram_gb": 24})
    assert taken.status_code == 200, taken.text
    ended = (await live_fake.client.get(taken.headers["location"], params={"wait": 30})).json()
    assert (ended["verdict"], fake.executed[-1].gpu) == ("ok", 0)
    plain = await live_fake.client.post(
        "/run", content=programs.HELLO.code, headers={"content-type": "text/plain"}
    )
    assert (plain.status_code, fake.executed[-1].gpu) == (200, None)


async def test_a_job_has_its_packages_before_it_has_a_device(live_fake: Live, fake: FakeExecutor) -> None:
    fake.gpus, fake.installers = (DEVICE,), (Installer.uv,)
    manifest = {"entrypoint": "main.py", "gpu": {}, "requirements": "requirements.txt"}
    taken = await live_fake.client.post(
        "/submit",
        files=[
            ("files", ("main.py", programs.HELLO.code.encode())),
            ("files", ("requirements.txt", b"six\n")),
        ],
        data={"manifest": json.dumps(manifest)},
    )
    ended = (await live_fake.client.get(taken.headers["location"], params={"wait": 30})).json()
    assert ended["verdict"] == "ok", ended
    asked = [(job.install_only, job.gpu, job.installer) for job in fake.executed]
    assert asked == [(True, None, Installer.uv), (False, 0, Installer.uv)]
    assert fake.required[0] == fake.required[1] == {b"requirements.txt": b"six\n"}
    # What the fake says that installing and running took.
    assert (ended["metrics"]["setup_seconds"], ended["metrics"]["setup_cpu_seconds"]) == (2.001, 1.0)
    assert ended["metrics"]["cpu_seconds"] == 0.01


async def test_what_is_not_there_is_refused_before_the_queue(live_fake: Live, fake: FakeExecutor) -> None:
    fake.gpus = (DEVICE,)
    refused = await submit(live_fake, {"min_vram_gb": 80})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["pointer"] == "/gpu/min_vram_gb"
    assert "25.8 GB" in refused.json()["reason"]
    assert fake.executed == []


async def test_a_server_without_gpus_says_so(live_fake: Live) -> None:
    refused = await submit(live_fake, {})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/gpu")
    assert (await live_fake.client.get("/")).json()["gpus"] == []
