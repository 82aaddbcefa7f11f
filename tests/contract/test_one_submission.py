"""`/run` takes what a manifest takes, and the same request is the same job whichever way it came."""

import asyncio
import io
import json
from typing import Any

import pytest
from nacl.public import PrivateKey

from sandrun_client import AsyncSandrunClient
from sandrun_shared import keys, sealing
from sandrun_shared.jobs import Installer
from sandrun_shared.protocol import Gpu
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live

pytestmark = pytest.mark.anyio
DEVICE = Gpu(0, "GPU-0", "NVIDIA Fake", 24 << 30, (8, 9), (12, 4))
READER = PrivateKey(b"\5" * 32)
PUBLIC = keys.text_of(bytes(READER.public_key))
OPTIONS: dict[str, Any] = {
    "environment": "default",
    "args": ["a", "b c"],
    "env": {"NAME": "value"},
    "stdin": "typed",
    "outputs": ["results/"],
    "requirements": "requirements.txt",
    "timeout": 20.5,
    "memory_mb": 64,
    "cpu_seconds": 3.5,
    "gpu": {"min_vram_gb": 2},
    "warm": False,
    "buffered": True,
    "priority": "batch",
    "encrypt_to": PUBLIC,
}
REQUIREMENTS = "six\n"


async def ran(live: Live, code: str, **body: object) -> dict[str, Any]:
    """The answer of /run."""
    answer = await live.client.post("/run", json={"code": code, **body})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def submitted(live: Live, code: str, **manifest: object) -> dict[str, Any]:
    """The status of a job that was submitted, and has ended."""
    given = {"entrypoint": "main.py", "interpreter": "python3", **manifest}
    files = [("files", ("requirements.txt", REQUIREMENTS.encode())), ("files", ("main.py", code.encode()))]
    answer = await live.client.post("/submit", files=files, data={"manifest": json.dumps(given)})
    assert answer.status_code == 200, answer.text
    status = await live.client.get(answer.headers["location"], params={"wait": 30})
    document: dict[str, Any] = status.json()
    return document


def what_it_is(answer: dict[str, Any]) -> tuple[str, ...]:
    """The hashes that say which job this was, as the worker signed them."""
    statement = answer["receipt"]["statement"]
    names = ("job_hash", "manifest_sha256", "upload_sha256", "order_sha256")
    return tuple(statement[name] for name in names)


async def test_there_is_a_case_for_every_option(live_fake: Live) -> None:
    schemas = (await live_fake.client.get("/openapi.json")).json()["components"]["schemas"]
    run, manifest = schemas["RunRequest"]["properties"], schemas["Manifest"]["properties"]
    assert manifest.keys() - {"entrypoint", "interpreter"} == OPTIONS.keys()
    assert run.keys() - {"code", "interpreter", "files"} == OPTIONS.keys()
    for name in OPTIONS:
        assert run[name] == manifest[name]


@pytest.mark.parametrize("name", OPTIONS)
async def test_the_same_request_is_the_same_job(live_fake: Live, fake: FakeExecutor, name: str) -> None:
    fake.gpus, fake.installers = (DEVICE,), (Installer.uv,)
    code, option = programs.HELLO.code, {name: OPTIONS[name]}
    by_run = await ran(live_fake, code, files={"requirements.txt": REQUIREMENTS}, **option)
    by_submit = await submitted(live_fake, code, **option)
    assert what_it_is(by_run) == what_it_is(by_submit)
    assert by_run["receipt"]["statement"]["limits"] == by_submit["receipt"]["statement"]["limits"]
    first, second = fake.executed[-2:]
    for field in ("gpu", "encrypt_to", "installer", "warm", "buffered", "has_stdin", "limits", "environment"):
        assert getattr(first, field) == getattr(second, field), field
    plain = await ran(live_fake, code, files={"requirements.txt": REQUIREMENTS})
    is_default = name == "environment"
    assert (what_it_is(plain)[1] == what_it_is(by_run)[1]) is is_default  # it was not dropped


async def test_a_run_has_the_device_that_it_asks_for(live_fake: Live, fake: FakeExecutor) -> None:
    fake.gpus = (DEVICE,)
    await ran(live_fake, programs.HELLO.code, gpu={"min_vram_gb": 24})
    assert fake.executed[-1].gpu == 0


@pytest.mark.parametrize("gpu", [{}, {"min_vram_gb": 1}])
async def test_a_device_that_is_not_there_is_refused_alike(live: Live, gpu: dict[str, object]) -> None:
    run = await live.client.post("/run", json={"code": "print(1)", "gpu": gpu})
    submit = await live.client.post(
        "/submit",
        files=[("files", ("main.py", b"print(1)"))],
        data={"manifest": json.dumps({"entrypoint": "main.py", "gpu": gpu})},
    )
    assert run.status_code == submit.status_code == 400
    assert run.json() == submit.json()
    assert run.json()["errors"][0]["pointer"] == "/gpu"


@pytest.mark.parametrize(
    "option",
    [
        {"priority": "urgent"},
        {"gpu": 1},
        {"gpu": {"model": "x"}},
        {"outputs": ["../x"]},
        {"outputs": ["x"] * 257},
        {"encrypt_to": keys.text_of(bytes(32))},
        {"environment": "no such/name"},
        {"requirements": "missing.txt"},
    ],
    ids=str,
)
async def test_what_is_wrong_is_wrong_in_both(
    live_fake: Live, fake: FakeExecutor, option: dict[str, object]
) -> None:
    fake.installers = (Installer.uv,)
    run = await live_fake.client.post("/run", json={"code": "print(1)", **option})
    submit = await live_fake.client.post(
        "/submit",
        files=[("files", ("main.py", b"print(1)"))],
        data={"manifest": json.dumps({"entrypoint": "main.py", **option})},
    )
    assert run.status_code == submit.status_code == 400
    assert run.json()["errors"] == submit.json()["errors"]
    assert fake.executed == []


async def test_a_batch_run_waits_for_the_normal_ones(live_fake: Live, fake: FakeExecutor) -> None:
    fake.slots = 1
    blocker = await live_fake.client.post(
        "/submit",
        files=[("files", ("main.py", programs.WAITS.code.encode()))],
        data={"manifest": json.dumps({"entrypoint": "main.py"})},
    )
    await fake.until(lambda: fake.running == 1)
    order: list[str] = []

    async def run(priority: str) -> None:
        await ran(live_fake, programs.HELLO.code, priority=priority)
        order.append(priority)

    async def waiting(jobs: int) -> None:
        length = 0
        while length < jobs:
            length = (await live_fake.client.get("/stats")).json()["system"]["queue_length"]

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(run("batch"))
        await waiting(1)
        group.create_task(run("normal"))
        await waiting(2)
        await live_fake.client.delete(f"/jobs/{blocker.json()['job_id']}")
    assert order == ["normal", "batch"]


async def test_a_run_keeps_the_outputs_that_it_asks_for(live: Live, request: pytest.FixtureRequest) -> None:
    body = await ran(live, programs.FILES.code, outputs=["results/"])
    kept = {item["path"] for item in body["files"]}
    if "real" in request.node.name:  # the fake one keeps everything
        assert kept == {"results/data.csv"}
    assert "results/data.csv" in kept


async def test_what_a_run_leaves_comes_back_sealed(live: Live) -> None:
    body = await ran(live, programs.FILES.code, encrypt_to=PUBLIC)
    assert body["receipt"]["statement"]["encrypt_to"] == PUBLIC
    assert (body["output"], body["stderr"]) == (body["stdout"], "")
    assert sealing.open_logs(READER, body["stdout"].encode()) == ([(1, b"done\n")], True)
    assert [item["path"] for item in body["files"]] == [sealing.OUTPUTS_NAME]
    sealed = io.BytesIO((await live.client.get(body["files"][0]["download_url"])).content)
    assert sealed.read(len(sealing.MAGIC)) == sealing.MAGIC
    opened = sealing.SealedOutputs(READER, sealed)
    assert {entry.path: b"".join(data) for entry, data in opened.files()} == programs.FILES.files


async def test_the_events_of_a_sealed_run_are_sealed(live: Live) -> None:
    answer = await live.client.post(
        "/run",
        json={"code": programs.HELLO.code, "encrypt_to": PUBLIC},
        headers={"accept": "text/event-stream"},
    )
    outputs = [
        json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith('data: {"type":"output')
    ]
    printed = "".join(event["data"] for event in outputs)
    assert sealing.open_logs(READER, printed.encode()) == ([(1, b"hello\n")], True)


async def test_the_client_passes_every_option(live_fake: Live, fake: FakeExecutor) -> None:
    fake.gpus, fake.installers = (DEVICE,), (Installer.uv,)
    worker = (await live_fake.client.get("/health")).json()["worker_id"]
    async with AsyncSandrunClient(f"http://127.0.0.1:{live_fake.port}", verify_with=worker) as client:
        result = await client.run(programs.HELLO.code, files={"requirements.txt": REQUIREMENTS}, **OPTIONS)
    assert sealing.open_logs(READER, result.logs.stdout_bytes) == ([(1, b"hello\n")], True)
    assert (fake.executed[-1].gpu, fake.executed[-1].encrypt_to) == (0, bytes(READER.public_key))
