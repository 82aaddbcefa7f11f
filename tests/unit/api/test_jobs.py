"""The state machine, the queue, the logs, the outputs' index, the store."""

import io
import os
import re
import tarfile

import pytest

from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.edge.clients import key_of
from sandrun_api.jobs.logs import JobLogs
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.model import IllegalTransition, Job, JobRequest, State
from sandrun_api.jobs.outputs import BadIndex, Outputs, adopt, tar_gz
from sandrun_api.jobs.queue import FairQueue
from sandrun_api.jobs.store import JobStore
from sandrun_shared.jobs import Limits, Outcome, UploadKind, Verdict
from sandrun_shared.memfds import Memfd
from sandrun_shared.settings import Api
from support.outputs import index_of

pytestmark = pytest.mark.anyio


def make_job(client: str = "a", priority: str = "normal", budget: MemoryBudget | None = None) -> Job:
    manifest = Manifest(entrypoint="main.py", priority=priority)  # type: ignore[arg-type]
    request = JobRequest(client, manifest, "python3", Limits(), UploadKind.bundle, "0" * 64, "hash")
    reservation = Reservation(budget or MemoryBudget(1 << 30))
    reservation.reserve(4)
    return Job(request, Memfd.create("test", b"code"), reservation)


async def test_life_of_a_job() -> None:
    budget = MemoryBudget(1 << 20)
    job = make_job(budget=budget)
    job.transition(State.running)
    job.finish(Outcome(Verdict.ok, 0))
    assert (job.state, job.finished.is_set(), budget.used_bytes) == (State.completed, True, 0)
    with pytest.raises(IllegalTransition):
        job.transition(State.running)
    with pytest.raises(IllegalTransition):
        job.finish(Outcome(Verdict.ok, 0))


async def test_an_id_is_a_word_for_every_command_line() -> None:
    ids = {make_job().job_id for _ in range(500)}
    assert len(ids) == 500
    assert all(re.fullmatch("[0-9a-f]{32}", job_id) for job_id in ids)


async def test_memory_is_given_back_once_however_a_job_is_forgotten() -> None:
    budget = MemoryBudget(1 << 20)
    deleted, ended = make_job(budget=budget), make_job(budget=budget)
    deleted.transition(State.running)
    deleted.logs.append(1, b"text")
    deleted.close()
    deleted.finish(Outcome(Verdict.cancelled))
    ended.transition(State.running)
    ended.finish(Outcome(Verdict.ok, 0))
    ended.close()
    assert budget.used_bytes == 0


async def test_a_queued_job_cannot_complete() -> None:
    job = make_job()
    with pytest.raises(IllegalTransition):
        job.finish(Outcome(Verdict.ok, 0))
    job.close()


async def test_clients_take_turns() -> None:
    queue = FairQueue(0)
    jobs = {name: make_job(name[0]) for name in ("a1", "a2", "a3", "b1", "c1", "b2")}
    for job in jobs.values():
        queue.push(job)
    expected = ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert [queue.position(jobs[name]) for name in expected] == [1, 2, 3, 4, 5, 6]
    assert [queue.pop() for _ in expected] == [jobs[name] for name in expected]
    assert queue.pop() is None
    for job in jobs.values():
        job.close()


async def test_a_client_with_enough_running_is_passed_over() -> None:
    queue = FairQueue(1)
    first, second, other = make_job("a"), make_job("a"), make_job("b")
    for job in (first, second, other):
        queue.push(job)
    assert [queue.pop(), queue.pop(), queue.pop()] == [first, other, None]
    queue.ended("a")
    assert queue.pop() is second
    for job in (first, second, other):
        job.close()


async def test_batch_jobs_wait_for_normal_ones() -> None:
    queue = FairQueue(1)
    batch, normal, blocked = make_job("a", "batch"), make_job("b"), make_job("b")
    for job in (batch, normal, blocked):
        queue.push(job)
    assert queue.position(batch) == 3
    assert [queue.pop(), queue.pop()] == [normal, None]
    queue.ended("b")
    assert [queue.pop(), queue.pop()] == [blocked, batch]
    for job in (batch, normal, blocked):
        job.close()


async def test_remove_and_put_back() -> None:
    queue = FairQueue(0)
    one, two = make_job("a"), make_job("b")
    queue.push(one)
    queue.push(two)
    assert queue.pop() is one
    queue.ended("a")
    queue.push_front(one)
    assert queue.pop() is one
    assert queue.remove(two)
    assert not queue.remove(two)
    assert len(queue) == 0
    one.close()
    two.close()


def logs(limit: int = 1000) -> JobLogs:
    return JobLogs(limit, Reservation(MemoryBudget(1 << 20)))


async def test_logs_are_bounded_and_counted() -> None:
    kept = logs(5)
    kept.append(1, b"abc")
    kept.append(2, b"defg")
    kept.append(1, b"h")
    assert kept.combined() == b"abcde"
    assert kept.split(0, kept.size) == (b"abc", b"de")
    assert (kept.truncated, kept.seen_bytes) == (True, {1: 4, 2: 4})
    assert list(kept.pieces(1)) == [(1, 1, b"bc"), (3, 2, b"de")]


async def test_text_ends_at_a_whole_character() -> None:
    text = "aé€😀".encode()
    for size in range(len(text) + 1):
        kept = logs()
        if size:
            kept.append(1, text[:size])
        assert kept.combined()[: kept.text_end()].decode() == text[:size].decode("utf-8", "ignore")
        kept.close()
        assert kept.text_end() == size


async def test_more_waits_for_output_and_for_the_end() -> None:
    kept = logs()
    kept.append(1, b"a")
    assert await kept.more(0)
    kept.close()
    assert not await kept.more(1)


@pytest.mark.parametrize(
    "index",
    [
        index_of({"../x": b"x"}),
        index_of({"/x": b"x"}),
        index_of({"a/../x": b"x"}),
        index_of({"./x": b"x"}),
        index_of({"": b"x"}),
        index_of({"y" * 1025: b"x"}),
        index_of({"x": b"xx"}),
        index_of({"x": b"x"}, mode=0o4755),
        index_of({"x": b"x"}, modified=2**32),
        index_of({"x": b"x"})[:-1],
        index_of({"x": b"x"}) + b"\0",
        index_of({"\udcff": b"x", "\\xff": b""}),
        index_of({**{str(number): b"" for number in range(11)}, "x": b"x"}),
        b"x\0001\0",
        b"x" * 100_000,
        b"",
    ],
)
async def test_hostile_index(index: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    data, listing = os.memfd_create("data"), os.memfd_create("index")
    os.write(data, b"x")
    os.write(listing, index)
    with pytest.raises(BadIndex):
        adopt(data, listing, 10)
    assert len(os.listdir("/proc/self/fd")) == before


def adopted(files: dict[str, bytes], **options: int) -> Outputs:
    data, listing = os.memfd_create("data"), os.memfd_create("index")
    os.write(data, b"".join(files.values()))
    os.write(listing, index_of(files, **options))
    return adopt(data, listing, 10)


async def test_names_that_are_not_text_are_shown_and_packed_as_they_are() -> None:
    outputs = adopted({"caf\udce9\n": b"x"})
    assert [file.path for file in outputs.files] == ["caf\\xe9\n"]
    packed = b"".join(tar_gz(outputs))
    with tarfile.open(fileobj=io.BytesIO(packed), encoding="utf-8") as archive:
        assert [os.fsencode(name) for name in archive.getnames()] == [b"caf\xe9\n"]
    outputs.close()


async def test_an_archive_has_the_permissions_and_times() -> None:
    outputs = adopted({"run.sh": b"x", "y" * 200: b""}, mode=0o755, modified=1_600_000_000)
    packed = b"".join(tar_gz(outputs))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert [(member.mode, member.mtime) for member in archive] == [(0o755, 1_600_000_000)] * 2
    outputs.close()


@pytest.mark.parametrize("name", ["data:a/b\r\nX-Injected: yes,z", "data:text/html,x", "data:é/é,x"])
async def test_a_name_that_looks_like_a_url_does_not_choose_its_type(name: str) -> None:
    outputs = adopted({name: b"x"})
    assert outputs.files[0].mime_type == "application/octet-stream"
    outputs.close()


async def test_oldest_finished_job_makes_room() -> None:
    budget = MemoryBudget(1000)
    store = JobStore(Api(), budget)
    jobs = [make_job(budget=budget) for _ in range(3)]
    for job in jobs:
        store.add(job)
        job.transition(State.running)
        job.logs.append(1, b"x" * 250)
    for job in jobs[:2]:
        job.finish(Outcome(Verdict.ok, 0))
        store.retain(job)
    assert store.get(jobs[0].job_id) is jobs[0]
    jobs[2].logs.append(1, b"x" * 200)
    assert store.get(jobs[0].job_id) is None
    assert store.get(jobs[1].job_id) is jobs[1]
    store.close()
    assert budget.used_bytes == 0


def test_clients_are_networks() -> None:
    assert key_of("2001:db8::1") == key_of("2001:db8::ffff")
    assert key_of("2001:db8:0:1::1") != key_of("2001:db8::1")
    assert key_of("::ffff:192.0.2.1") == key_of("192.0.2.1")
    assert key_of("192.0.2.1") != key_of("192.0.2.2")
    assert "192" not in key_of("192.0.2.1")
